// lectern report --beside: two readers' texts of the same pictures, scored and shown.
#include "recipes/report/comparison.h"

#include "core/io/file.h"
#include "data/images/image.h"
#include "tests/recipes/spawn.h"
#include "tests/testing.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <filesystem>

namespace lectern {
namespace {

using nlohmann::json;
using testing::throws_with;

struct Piece {
  const char *document, *truth, *read, *other;
};

/// A level as `lectern eval --out` and the script leave it; a null `other` has no text.
void make_level(const std::filesystem::path& folder, const std::vector<Piece>& pieces) {
  for (const char* part : {"images", "tesseract"})
    std::filesystem::create_directories(folder / part);
  json samples = json::array();
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const std::string stem = fmt::format("{:05}", i);
    samples.push_back({{"stem", stem},
                       {"name", fmt::format("{}/{:04}|w3", pieces[i].document, i)},
                       {"document", pieces[i].document},
                       {"truth", pieces[i].truth},
                       {"read", pieces[i].read}});
    write_png(make_image(4, 3, 200), folder / "images" / (stem + ".png"));
    if (pieces[i].other != nullptr)
      write_file(folder / "tesseract" / (stem + ".txt"), pieces[i].other);
  }
  write_file(folder / "samples.json", samples.dump());
}

class Beside : public ::testing::Test {
 protected:
  void SetUp() override {
    make_level(folder_.path() / "word", {{"b", "cat", "cat", "cat\n\f"},
                                         {"a", "dogs", "dig", "dogs"},
                                         {"a", "x<y", "x<y", nullptr}});
    make_level(folder_.path() / "page", {{"a", "one two\nthree", "one two three", "one  two"}});
    write_file(folder_.path() / "model.txt", "nano\n");
    write_file(folder_.path() / "tesseract.txt", "tesseract 5\n");
  }
  testing::TemporaryFolder folder_;
};

TEST_F(Beside, BothAreScoredAlikeByLevelAndDocument) {
  const Comparison comparison = read_comparison(folder_.path());
  EXPECT_EQ(comparison.levels, (std::vector<std::string>{"word", "page"}));
  ASSERT_EQ(comparison.scores[0].size(), 3u);  // a, b, all
  const ComparedScores &a = comparison.scores[0][0], &all = comparison.scores[0][2];
  EXPECT_EQ(a.document, "a");
  EXPECT_EQ(a.ours.pages.size(), 2u);
  EXPECT_DOUBLE_EQ(a.ours.cer, 2.0 / 7);   // dogs -> dig
  EXPECT_DOUBLE_EQ(a.other.cer, 3.0 / 7);  // nothing for x<y
  EXPECT_DOUBLE_EQ(all.ours.cer, 2.0 / 10);
  EXPECT_DOUBLE_EQ(all.other.cer, 3.0 / 10);
  EXPECT_DOUBLE_EQ(all.other.edit_distance, 1.0 / 3);
  // A line feed and a space are the same to both.
  EXPECT_EQ(comparison.scores[1].back().ours.exact, 1);
  EXPECT_DOUBLE_EQ(comparison.scores[1].back().other.cer, 6.0 / 13);
}

TEST_F(Beside, TheCommandWritesPageTableAndFigures) {
  const auto page = folder_.path() / "report.html";
  const auto run =
      testing::run_lectern({"report", "--beside", folder_.path().string(), "--out", page.string()});
  ASSERT_EQ(run.status, 0) << run.errors;
  const json results = json::parse(read_file(folder_.path() / "results.json"));
  EXPECT_EQ(results["model"], "nano");
  EXPECT_EQ(results["tesseract"], "tesseract 5");
  EXPECT_EQ(results["levels"][0]["level"], "word");
  EXPECT_DOUBLE_EQ(results["levels"][0]["tesseract"]["cer"].get<double>(), 0.3);
  EXPECT_EQ(results["levels"][0]["documents"][1]["document"], "b");
  const std::string table = read_file(folder_.path() / "table.md");
  EXPECT_NE(table.find("| word | all | 3 | 20.0 % |"), std::string::npos) << table;
  EXPECT_NE(table.find("| page | a | 1 | 0.0 % |"), std::string::npos) << table;
  const std::string html = read_file(page);
  for (const char* part : {"words: read worst", "pages: read worst", "data:image/png", "x&lt;y",
                           ">tesseract<", "20.0 % of the characters wrong (30.0 %)"})
    EXPECT_NE(html.find(part), std::string::npos) << part;
  EXPECT_EQ(html.find("src=\"http"), std::string::npos);
}

TEST_F(Beside, WhatIsMissingIsNamed) {
  EXPECT_TRUE(throws_with([&] { read_comparison(folder_.path() / "nothing"); },
                          {"nothing: must have word/, line/, region/ or page/"}));
  std::filesystem::remove_all(folder_.path() / "page" / "tesseract");
  EXPECT_TRUE(throws_with([&] { read_comparison(folder_.path()); },
                          {"page/tesseract: must have tesseract's texts"}));
  write_file(folder_.path() / "word" / "samples.json", R"([{"stem": "00000", "document": 3}])");
  EXPECT_TRUE(throws_with([&] { read_comparison(folder_.path()); },
                          {"samples.json: document must be a string"}));
}

}  // namespace
}  // namespace lectern
