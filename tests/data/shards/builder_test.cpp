#include "data/shards/builder.h"

#include "core/error.h"
#include "core/io/file.h"
#include "core/io/folder_lock.h"
#include "data/pages/list.h"
#include "data/shards/shard_set.h"
#include "tests/data/synthetic_pages.h"
#include "tests/testing.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <map>
#include <set>

namespace lectern {
namespace {

using nlohmann::json;
using testing::synthetic_page;
using testing::SyntheticPage;
using testing::TemporaryFolder;
using testing::throws_with;
using testing::write_synthetic;

class Shards : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int page = 1; page <= 6; ++page) write_synthetic(synthetic_page("first", page), pages());
    for (int page = 1; page <= 3; ++page) write_synthetic(synthetic_page("second", page), pages());
    write_synthetic(synthetic_page("third", 1), pages());
  }
  std::filesystem::path pages() const { return folder_.path() / "pages"; }
  std::filesystem::path out() const { return folder_.path() / "shards"; }
  ShardBuildOptions options() const {
    ShardBuildOptions options;
    options.pages = {pages()};
    options.tokenizer = testing::tokenizer_file();
    options.out = out();
    return options;
  }
  json manifest() const { return parse_json(read_file(out() / "manifest.json"), "manifest"); }

  TemporaryFolder folder_;
};

TEST_F(Shards, HoldThePagesAsTheyAre) {
  const ShardBuildSummary summary = build_shards(options());
  EXPECT_FALSE(summary.up_to_date);
  EXPECT_TRUE(summary.dropped.empty());
  ASSERT_EQ(summary.splits.size(), 1u);
  EXPECT_EQ(summary.splits[0].name, "train");
  EXPECT_EQ(summary.splits[0].pages, 10);
  EXPECT_EQ(summary.splits[0].documents, 3);
  EXPECT_EQ(summary.splits[0].lines, 50);
  EXPECT_EQ(summary.splits[0].words, 150);
  const ShardSet set(out() / "train");
  ASSERT_EQ(set.pages(), 10);
  EXPECT_EQ(set.tokenizer_sha256(), testing::test_tokenizer_sha256());
  std::set<std::string> ids;
  for (std::int64_t i = 0; i < 10; ++i) {
    const auto page = set.decoded(i);
    ids.insert(page->page.id);
    const SyntheticPage from = synthetic_page(page->page.document, page->page.number);
    const ShardPage want = testing::shard_page(from);
    EXPECT_EQ(page->page.text, want.text);
    EXPECT_EQ(page->page.ids, want.ids);
    EXPECT_EQ(page->page.words.ids.values, want.words.ids.values);
    EXPECT_EQ(page->page.lines.texts.values, want.lines.texts.values);
    EXPECT_EQ(page->page.words.boxes, want.words.boxes);
    EXPECT_EQ(page->page.blocks, want.blocks);
    EXPECT_EQ(page->crop(0, 0, from.image.width, from.image.height).pixels, from.image.pixels);
  }
  EXPECT_EQ(ids.size(), 10u);
  EXPECT_EQ(read_file(out() / "tokenizer.json"), read_file(testing::tokenizer_file()));
}

TEST_F(Shards, ManifestSaysWhatIsThere) {
  PageList list;
  DocumentEntry document;
  document.id = "first";
  document.source = "first.pdf";
  document.sha256 = std::string(64, 'a');
  document.licence = "GFDL";
  document.dropped = {{7, "no text"}};
  list.documents = {document};
  for (int page = 1; page <= 6; ++page)
    list.pages.push_back({fmt::format("first-{:04}", page), "first", page, 0, 0, 0});
  save_page_list(list, pages());
  ShardBuildOptions small = options();
  small.pages_per_shard = 4;
  build_shards(small);
  const json root = manifest();
  EXPECT_EQ(root["format"], "lectern-shards");
  EXPECT_EQ(root["tokenizer"]["sha256"], testing::test_tokenizer_sha256());
  const json& train = root["splits"]["train"];
  EXPECT_EQ(train["documents"], json::array({"first"}));
  ASSERT_EQ(train["shards"].size(), 2u);
  EXPECT_EQ(train["shards"][0]["pages"], 4);
  EXPECT_EQ(train["shards"][1]["pages"], 2);
  for (const json& shard : train["shards"]) {
    const auto path = out() / "train" / shard["file"].get<std::string>();
    EXPECT_EQ(shard["sha256"], sha256_of_file(path));
    EXPECT_EQ(shard["bytes"], std::filesystem::file_size(path));
  }
  ASSERT_EQ(root["mixture"].size(), 1u);
  EXPECT_EQ(root["mixture"][0]["licence"], "GFDL");
  EXPECT_EQ(root["mixture"][0]["sha256"], std::string(64, 'a'));
  EXPECT_EQ(root["mixture"][0]["share"], 1.0);
  EXPECT_EQ(root["dropped_before"], 1);
  std::filesystem::remove(out() / "train" / "shard-00001.h5");
  EXPECT_TRUE(throws_with([&] { ShardSet set(out() / "train"); }, {"names 2 shards"}));
}

TEST_F(Shards, BadPagesAreDroppedAndListed) {
  std::filesystem::remove(pages() / "first-0002.png");
  write_file(pages() / "first-0003.json", "{\"format\": ");
  write_file(pages() / "first-0004.png", read_file(pages() / "first-0004.png").substr(0, 60));
  write_png(make_image(10, 10), pages() / "first-0005.png");
  SyntheticPage special = synthetic_page("second", 3);
  special.page.lines[0].words[0].text = "<|grounding|>";
  special.page.lines[0].text = "<|grounding|> " + special.page.lines[0].words[1].text + " " +
                               special.page.lines[0].words[2].text;
  special.page.text = text_of_lines(special.page.lines);
  write_synthetic(special, pages());
  write_synthetic(synthetic_page("second", 4, 0), pages());  // no text
  const ShardBuildSummary summary = build_shards(options());
  EXPECT_EQ(summary.splits[0].pages, 10 - 5);
  std::map<std::string, std::string> reasons;
  for (const DroppedShardPage& page : summary.dropped)
    reasons[std::filesystem::path(page.page).filename()] = page.reason;
  ASSERT_EQ(reasons.size(), 6u);
  EXPECT_NE(reasons["first-0002.json"].find("first-0002.png"), std::string::npos);
  EXPECT_NE(reasons["first-0003.json"].find("not valid JSON"), std::string::npos);
  EXPECT_NE(reasons["first-0004.json"].find("first-0004.png"), std::string::npos);
  EXPECT_EQ(reasons["first-0005.json"], "picture must be 236 x 130, got 10 x 10");
  EXPECT_EQ(reasons["second-0003.json"], "text holds the special token <|grounding|>");
  EXPECT_FALSE(reasons["second-0004.json"].empty());
  EXPECT_EQ(manifest()["dropped"].size(), 6u);
}

TEST_F(Shards, SplitsKeepDocumentsTogether) {
  ShardBuildOptions split = options();
  split.validation_documents = {"second", "third"};
  const ShardBuildSummary summary = build_shards(split);
  ASSERT_EQ(summary.splits.size(), 2u);
  EXPECT_EQ(summary.splits[0].pages, 6);
  EXPECT_EQ(summary.splits[1].pages, 4);
  const ShardSet validation(out() / "validation");
  for (std::int64_t i = 0; i < 4; ++i) EXPECT_NE(validation.read(i)->page.document, "first");

  split.validation_documents.clear();
  for (const double share : {0.9, 0.7, 0.5, 0.01}) {
    split.train_share = share;
    build_shards(split);
    const json splits = manifest()["splits"];
    std::set<std::string> seen;
    for (const auto& [name, part] : splits.items())
      for (const json& document : part["documents"])
        EXPECT_TRUE(seen.insert(document.get<std::string>()).second);
    EXPECT_EQ(seen.size(), 3u);
    EXPECT_EQ(splits["train"]["pages"].get<int>() + splits["validation"]["pages"].get<int>(), 10);
    if (share == 0.7) {
      EXPECT_NEAR(splits["train"]["pages"].get<int>(), 7, 1);
    }
  }
}

TEST_F(Shards, UpToDateIsLeftAlone) {
  EXPECT_FALSE(build_shards(options()).up_to_date);
  const std::string first = read_file(out() / "manifest.json");
  const ShardBuildSummary again = build_shards(options());
  EXPECT_TRUE(again.up_to_date);
  EXPECT_EQ(again.splits[0].pages, 10);
  EXPECT_EQ(read_file(out() / "manifest.json"), first);
  ShardBuildOptions other = options();
  other.seed = 3;
  EXPECT_FALSE(build_shards(other).up_to_date);
  EXPECT_FALSE(build_shards(options()).up_to_date);
  EXPECT_EQ(read_file(out() / "manifest.json"), first);  // the same bytes from the same pages
  write_synthetic(synthetic_page("third", 2), pages());
  EXPECT_EQ(build_shards(options()).splits[0].pages, 11);
  write_file(out() / "train" / "shard-00000.h5", "cut");
  EXPECT_FALSE(build_shards(options()).up_to_date);
  // What a killed build leaves is in nobody's way.
  std::filesystem::create_directories(folder_.path() / "shards.partial" / "train");
  write_file(folder_.path() / "shards.partial" / "train" / "shard-00000.h5", "half");
  write_synthetic(synthetic_page("third", 3), pages());
  EXPECT_EQ(build_shards(options()).splits[0].pages, 12);
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "shards.partial"));
}

TEST_F(Shards, PagesOfDocumentsAreMixed) {
  ShardBuildOptions all = options();
  for (int page = 2; page <= 20; ++page) write_synthetic(synthetic_page("third", page), pages());
  build_shards(all);
  const ShardSet set(out() / "train");
  int changes = 0;
  for (std::int64_t i = 1; i < set.pages(); ++i)
    changes += set.read(i)->page.document != set.read(i - 1)->page.document;
  EXPECT_GT(changes, 5);
}

TEST_F(Shards, PagesOfAnOnlyDocumentAreHeldOutAndItIsTold) {
  ShardBuildOptions one = options();
  one.pages = {folder_.path() / "one"};
  write_synthetic(synthetic_page("only", 1), one.pages[0]);
  one.train_share = 0.9;
  EXPECT_TRUE(throws_with([&] { build_shards(one); }, {"split must be 1 for a single page"}));
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "shards.partial"));
  for (int page = 2; page <= 10; ++page)
    write_synthetic(synthetic_page("only", page), one.pages[0]);
  one.train_share = 0.7;
  for (const bool again : {false, true}) {
    const ShardBuildSummary summary = build_shards(one);
    EXPECT_EQ(summary.up_to_date, again);
    EXPECT_TRUE(summary.shares_document);
    ASSERT_EQ(summary.splits.size(), 2u);
    EXPECT_EQ(summary.splits[0].pages, 7);
    EXPECT_EQ(summary.splits[1].pages, 3);
    EXPECT_EQ(summary.splits[1].documents, 1);
  }
  std::set<std::int64_t> held, all;
  const ShardSet train(out() / "train"), validation(out() / "validation");
  for (std::int64_t i = 0; i < 3; ++i) held.insert(validation.read(i)->page.number);
  all = held;
  for (std::int64_t i = 0; i < 7; ++i) all.insert(train.read(i)->page.number);
  EXPECT_EQ(all.size(), 10u);
  EXPECT_EQ(*held.rbegin() - *held.begin(), 2);  // in a row
  EXPECT_EQ(manifest()["settings"]["held_out"], "pages");
  EXPECT_EQ(manifest()["mixture"].size(), 2u);
  one.train_share = 0.999;
  EXPECT_EQ(build_shards(one).splits[1].pages, 1);
  one.train_share = 1;
  EXPECT_FALSE(build_shards(one).shares_document);
  EXPECT_EQ(manifest()["settings"]["held_out"], "documents");
}

TEST_F(Shards, OneAtATimeMakesAFolder) {
  std::filesystem::create_directories(folder_.path() / "shards.partial");
  {
    const FolderLock lock(folder_.path() / "shards.partial", "a test");
    EXPECT_TRUE(throws_with([&] { build_shards(options()); }, {"is in use by", "a test"}));
    EXPECT_TRUE(std::filesystem::exists(folder_.path() / "shards.partial" / ".lectern-lock"));
  }
  EXPECT_EQ(build_shards(options()).splits[0].pages, 10);
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "shards.partial"));
  EXPECT_FALSE(std::filesystem::exists(out() / ".lectern-lock"));
}

TEST_F(Shards, SamePageTwiceIsDropped) {
  ShardBuildOptions twice = options();
  twice.pages.push_back(folder_.path() / "more");
  write_synthetic(synthetic_page("third", 1), folder_.path() / "more");
  const ShardBuildSummary summary = build_shards(twice);
  EXPECT_EQ(summary.splits[0].pages, 10);
  ASSERT_EQ(summary.dropped.size(), 1u);
  EXPECT_EQ(summary.dropped[0].reason, "page third/0001 was given twice");
}

TEST_F(Shards, BadArgumentsAreErrors) {
  const auto with = [&](auto change) {
    return [this, change] {
      ShardBuildOptions changed = options();
      change(changed);
      build_shards(changed);
    };
  };
  using O = ShardBuildOptions;
  EXPECT_TRUE(throws_with(with([](O& o) { o.pages.clear(); }), {"needs a folder of pages"}));
  EXPECT_TRUE(throws_with(with([](O& o) { o.pages = {"/nonexistent"}; }),
                          {"/nonexistent", "must be a folder of pages"}));
  EXPECT_TRUE(throws_with(with([&](O& o) {
                            o.pages = {folder_.path() / "empty"};
                            std::filesystem::create_directory(o.pages[0]);
                          }),
                          {"empty", "must hold pages"}));
  EXPECT_TRUE(throws_with(with([](O& o) { o.train_share = 0; }), {"split must be in (0, 1]"}));
  EXPECT_TRUE(throws_with(with([](O& o) {
                            o.train_share = 0.5;
                            o.validation_documents = {"third"};
                          }),
                          {"not both"}));
  EXPECT_TRUE(throws_with(with([](O& o) { o.validation_documents = {"forth"}; }),
                          {"must be one of first, second, third, got forth"}));
  EXPECT_TRUE(throws_with(with([](O& o) {
                            o.validation_documents = {"first", "second", "third"};
                          }),
                          {"no page is left for training"}));
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "shards.partial"));
  EXPECT_TRUE(
      throws_with(with([](O& o) { o.tokenizer = "/nonexistent.json"; }), {"/nonexistent.json"}));
  std::filesystem::create_directories(out());
  write_file(out() / "thesis.txt", "do not delete");
  EXPECT_TRUE(throws_with(with([](O&) {}), {"shards must be a new folder"}));
  EXPECT_EQ(read_file(out() / "thesis.txt"), "do not delete");
  EXPECT_TRUE(throws_with(with([](O& o) { o.out = "/proc/shards"; }), {"/proc/shards"}));
}

}  // namespace
}  // namespace lectern
