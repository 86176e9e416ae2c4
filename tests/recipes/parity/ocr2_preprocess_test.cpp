#include "recipes/parity/ocr2_preprocess.h"

#include "tests/testing.h"

#include <filesystem>
#include <fstream>

namespace lectern {
namespace {

TEST(Ocr2Preprocess, EqualsTheReferenceProcessor) {
  const ParityReport report = parity_preprocess(testing::fixture("preprocess"));
  EXPECT_TRUE(report.passed());
  // 1 row of grids; 5 images with Pillow, 2 also with torchvision; "small" has no tiles.
  EXPECT_EQ(report.rows.size(), 1u + 7u + 5u);
  for (const ParityRow& row : report.rows)
    EXPECT_TRUE(row.passed) << row.what << ": " << row.difference << " " << row.note;
}

TEST(Ocr2Preprocess, ParityNoticesAWrongGrid) {
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
