// Keys that follow content, what filters left out, and what held-out sources share with training.
#include "data/samples/records.h"

#include "core/io/file.h"
#include "data/samples/cut.h"
#include "data/samples/drawn.h"
#include "data/samples/sample.h"
#include "data/samples/text.h"
#include "tests/data/synthetic_pages.h"
#include "tests/data/text_sample.h"
#include "tests/data/view_tokens.h"

namespace lectern {
namespace {

using testing::shard_page;
using testing::synthetic_page;
using testing::test_tokenizer;

SampleOptions one_view() {
  SampleOptions options;
  ViewOptions view;
  view.global_size = 128;
  view.tile_size = 64;
  testing::set_small_tokens(view);
  options.views = {view};
  return options;
}

/// Folders of one shard.
class SampleRecords : public ::testing::Test {
 protected:
  std::shared_ptr<const ShardSet> shards(const std::string& name,
                                         const std::vector<ShardPage>& pages) {
    const auto path = folder_.path() / name;
    std::filesystem::create_directories(path);
    ShardWriter writer;
    for (const ShardPage& page : pages) writer.add(page);
    writer.write(path / "shard-00000.h5", testing::test_tokenizer_sha256());
    return std::make_shared<const ShardSet>(path);
  }
  static ShardPage page(int number, const std::string& document = "doc") {
    return shard_page(synthetic_page(document, number), test_tokenizer());
  }
  static std::shared_ptr<const SampleSource> cut(std::shared_ptr<const ShardSet> from, Level level,
                                                 std::int64_t cut_width = 0) {
    CutOptions options;
    options.shards = std::move(from);
    options.level = level;
    options.cut_width = cut_width;
    return make_cut_source(options, test_tokenizer());
  }

  testing::TemporaryFolder folder_;
};

TEST_F(SampleRecords, KeysFollowContentAndNotNames) {
  const ShardPage first = page(1);
  ShardPage other_picture = page(2);  // words of the same sizes at the same places
  other_picture.id = first.id;
  ShardPage other_boxes = first;
  for (auto& box : other_boxes.words.boxes) box[2] += 1;
  for (auto& box : other_boxes.lines.boxes) box[2] += 1;
  ASSERT_EQ(other_picture.width, first.width);
  const auto a = shards("a", {first}), same = shards("same", {first});
  const auto b = shards("b", {other_picture}), c = shards("c", {other_boxes});
  const SampleOptions options = one_view();
  for (const Level level : {Level::word, Level::line, Level::region, Level::page})
    for (const std::int64_t width : {0, 60}) {
      if (width > 0 && (level == Level::word || level == Level::page)) continue;
      const auto key = [&](const std::shared_ptr<const ShardSet>& set) {
        const auto source = cut(set, level, width);
        const std::string out = source->key({options, Draw{}});
        EXPECT_EQ(source->make({options, Draw{}}, true).key, out);
        return out;
      };
      EXPECT_EQ(key(a), key(same)) << name_of(level);
      EXPECT_NE(key(a), key(b)) << name_of(level);
      if (level != Level::page) {
        EXPECT_NE(key(a), key(c)) << name_of(level);
      }
    }
}

TEST_F(SampleRecords, KeysOfDrawnTextFollowItsLimit) {
  write_file(folder_.path() / "text.txt", testing::kEnglish);
  const SampleOptions options = one_view();
  CorpusOptions corpus;
  corpus.text = {folder_.path() / "text.txt"};
  const auto synthetic =
      std::make_shared<const SyntheticSource>(TextCorpus(corpus), SyntheticOptions{});
  const auto drawn = [&](std::int64_t most) {
    DrawnOptions settings;
    settings.synthetic = synthetic;
    settings.max_response_tokens = most;
    return make_drawn_source(settings, test_tokenizer());
  };
  const auto any = drawn(100), one = drawn(1);
  int others = 0;
  for (int i = 0; i < 40; ++i) {
    const SampleRequest request{options, Draw{0, 0, i, 0}};
    const Sample a = any->make(request, false), b = one->make(request, false);
    EXPECT_EQ(a.text == b.text, a.key == b.key) << a.text << " " << b.text;
    EXPECT_EQ(any->key(request), a.key);
    others += a.text == b.text ? 0 : 1;
  }
  EXPECT_GT(others, 0) << "the limit must have changed a text";
}

TEST_F(SampleRecords, WhatFiltersLeaveOutIsCountedByReason) {
  const auto set = shards("a", {page(1)});  // words "p1w0" .. "p1w14"
  CutOptions options;
  options.shards = set;
  options.level = Level::word;
  EXPECT_EQ(make_cut_source(options, test_tokenizer())->remark(), "");
  options.max_characters = 4;
  const auto four = make_cut_source(options, test_tokenizer());
  EXPECT_EQ(four->count(), 10);
  EXPECT_EQ(four->left_out().characters, 5);
  EXPECT_EQ(four->dropped(), 5);
  EXPECT_EQ(four->remark(), "word of " + set->folder().string() +
                                ": 10 samples; 5 left out: 5 longer than max_characters");
  options.max_characters = 0;
  std::int64_t longest = 0;
  for (std::int64_t i = 0; i < 15; ++i)
    longest = std::max(longest, set->read(0)->page.words.ids.length(i));
  options.max_response_tokens = longest - 1;
  const auto shorter = make_cut_source(options, test_tokenizer());
  EXPECT_GT(shorter->left_out().tokens, 0);
  EXPECT_EQ(shorter->left_out().tokens + shorter->count(), 15);
  EXPECT_NE(shorter->remark().find("longer than max_text_tokens"), std::string::npos);
}

TEST_F(SampleRecords, SharedTextsAndDocumentsAreFound) {
  const auto training =
      cut(shards("training", {page(1, "a"), page(2, "a"), page(3, "b")}), Level::word);
  const auto shared = [&](const std::vector<ShardPage>& pages) {
    static int count = 0;
    return shared_records({training},
                          {cut(shards(fmt::format("held{}", ++count), pages), Level::line)});
  };
  const SharedRecords none = shared({page(7, "c")});
  EXPECT_EQ(none.records, 1);
  EXPECT_EQ(none.same_text, 0);
  EXPECT_TRUE(none.documents.empty());
  EXPECT_EQ(wording(none), "");
  const SharedRecords copy = shared({page(2, "other name"), page(7, "c")});
  EXPECT_EQ(copy.same_text, 1);
  EXPECT_EQ(copy.texts_documents, std::vector<std::string>{"other name"});
  EXPECT_NE(wording(copy).find("1 of 2 held-out records"), std::string::npos);
  const SharedRecords name = shared({page(9, "b")});
  EXPECT_EQ(name.same_text, 0);
  EXPECT_EQ(name.documents, std::vector<std::string>{"b"});
  EXPECT_NE(wording(name).find("documents of these names"), std::string::npos);
}

TEST_F(SampleRecords, DrawnTextSharesThePagesOfItsFiles) {
  const ShardPage held = page(2);
  write_file(folder_.path() / "p.txt", held.text + "\n");
  CorpusOptions corpus;
  corpus.text = {folder_.path() / "p.txt"};
  DrawnOptions settings;
  settings.files = text_files(corpus);
  settings.synthetic =
      std::make_shared<const SyntheticSource>(TextCorpus(corpus), SyntheticOptions{});
  const auto drawn = make_drawn_source(settings, test_tokenizer());
  const SharedRecords found =
      shared_records({drawn}, {cut(shards("held", {held, page(5)}), Level::word)});
  EXPECT_EQ(found.same_text, 1);
  EXPECT_EQ(found.records, 2);
}

}  // namespace
}  // namespace lectern
