// Residual streams against the reference formulas (tests/fixtures/mhc_A, three conventions).
#include "recipes/parity/mhc.h"

#include "core/io/safetensors.h"
#include "tests/testing.h"

namespace lectern {
namespace {

TEST(ParityMhc, EveryConvention) {
  const ParityReport report = parity_mhc(testing::fixture("mhc_A"));
  EXPECT_EQ(report.rows.size(), 3u * 11 + 12 + 2);
  for (const ParityRow& row : report.rows)
    EXPECT_TRUE(row.passed) << row.what << ": " << row.difference << " > " << row.bound << "  "
                            << row.note;
}

/// Each wrong number must be noticed where it shows.
TEST(ParityMhc, NoticesWrongValues) {
  const SafetensorsFile file = SafetensorsFile::open(testing::fixture("mhc_A") / "mhc.safetensors");
  for (const char* wrong : {"paper.res", "deepseek-v4.out", "megatron.grad.phi", "sinkhorn.paper.2",
                            "head.learned", "in.alpha"}) {
    const testing::TemporaryFolder folder;
    std::vector<std::pair<std::string, Tensor>> tensors;
    for (const std::string& name : file.names()) {
      Tensor tensor = file.get(name).clone();
      if (name == wrong) tensor.data<float>()[1] += 0.2f * (1.0f + tensor.data<float>()[1]);
      tensors.emplace_back(name, tensor);
    }
    save_safetensors(folder.path() / "mhc.safetensors", tensors);
    EXPECT_FALSE(parity_mhc(folder.path()).passed()) << wrong;
  }
}

TEST(ParityMhc, MissingFilesAreNamed) {
  const testing::TemporaryFolder folder;
  EXPECT_TRUE(testing::throws_with([&] { parity_mhc(folder.path()); }, {"mhc.safetensors"}));
  save_safetensors(folder.path() / "mhc.safetensors", {{"paper.out", Tensor::zeros({2, 4, 3})}});
  EXPECT_TRUE(testing::throws_with([&] { parity_mhc(folder.path()); }, {"in.x"}));
}

}  // namespace
}  // namespace lectern
