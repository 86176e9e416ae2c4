// The model and its image views against transformers: every fixture in the repository.
#include "recipes/parity/ocr2.h"

#include "core/io/file.h"
#include "core/io/safetensors.h"
#include "recipes/parity/ocr2_preprocess.h"
#include "tests/testing.h"

#include <nlohmann/json.hpp>

#include <fstream>

namespace lectern {
namespace {

void expect_parity(const std::filesystem::path& folder) {
  const ParityReport report = parity_ocr2(folder);
  EXPECT_FALSE(report.rows.empty());
  for (const ParityRow& row : report.rows)
    EXPECT_TRUE(row.passed) << row.what << ": " << row.difference << " > " << row.bound << "  "
                            << row.note;
}

TEST(ParityOcr2, SmallGrid) { expect_parity(testing::fixture("ocr2_A")); }
TEST(ParityOcr2, RealGrid) { expect_parity(testing::fixture("ocr2_A_grid64")); }

/// A parity check that cannot fail proves nothing: shift one weight and see it fail.
TEST(ParityOcr2, NoticesOneWrongWeight) {
  const testing::TemporaryFolder folder;
  const auto source = testing::fixture("ocr2_A");
  for (const char* name : {"config.json", "case_crop0.safetensors"})
    std::filesystem::copy(source / name, folder.path() / name);
  const SafetensorsFile weights = SafetensorsFile::open(source / "model.safetensors");
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const std::string& name : weights.names()) {
    Tensor tensor = weights.get(name).clone();
    if (name == "model.sam_model.blocks.1.attn.rel_pos_h") tensor.data<float>()[40] += 0.05f;
    tensors.emplace_back(name, tensor);
  }
  save_safetensors(folder.path() / "model.safetensors", tensors);
  EXPECT_FALSE(parity_ocr2(folder.path()).passed());
}

TEST(ParityOcr2, MissingFilesAreNamed) {
  const testing::TemporaryFolder folder;
  EXPECT_TRUE(testing::throws_with([&] { parity_ocr2(folder.path()); }, {"config.json"}));
  std::filesystem::copy(testing::fixture("ocr2_A") / "config.json", folder.path() / "config.json");
  EXPECT_TRUE(testing::throws_with([&] { parity_ocr2(folder.path()); }, {"case_*.safetensors"}));
}

TEST(ParityOcr2Preprocess, EqualsTheReferenceProcessor) {
  const ParityReport report = parity_preprocess(testing::fixture("preprocess"));
  EXPECT_TRUE(report.passed());
  // 1 row of grids; 5 images with Pillow, 2 also with torchvision; "small" has no tiles.
  EXPECT_EQ(report.rows.size(), 1u + 7u + 5u);
  for (const ParityRow& row : report.rows)
    EXPECT_TRUE(row.passed) << row.what << ": " << row.difference << " " << row.note;
}

TEST(ParityOcr2Preprocess, ParityNoticesAWrongGrid) {
  testing::TemporaryFolder folder;
  for (const char* name : {"grids.json", "pixels.safetensors"})
    std::filesystem::copy(testing::fixture("preprocess") / name, folder.path() / name);
  std::ofstream(folder.path() / "grids.json") << "[[2480, 3508, 3, 2, 1121]]";
  const ParityReport report = parity_preprocess(folder.path());
  EXPECT_FALSE(report.passed());
  EXPECT_FALSE(report.rows[0].passed);
  std::ofstream(folder.path() / "grids.json") << "[[2480, 3508, 3]]";
  EXPECT_TRUE(testing::throws_with([&] { parity_preprocess(folder.path()); },
                                   {"grids.json", "5 integers"}));
}

}  // namespace
}  // namespace lectern
