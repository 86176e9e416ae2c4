#include "data/samples/pairs.h"

#include "core/error.h"
#include "data/samples/batch.h"
#include "data/samples/cut.h"
#include "data/samples/loader.h"
#include "data/samples/sample.h"
#include "data/samples/text.h"
#include "data/shards/pair.h"
#include "tests/data/synthetic_pages.h"
#include "tests/data/view_tokens.h"
#include "tests/testing.h"

#include <set>

namespace lectern {
namespace {

using testing::synthetic_page;
using testing::TemporaryFolder;
using testing::test_tokenizer;
using testing::throws_with;

SampleOptions pair_options() {
  ViewOptions view;
  view.global_size = 128;
  view.tile_size = 64;
  testing::set_small_tokens(view);
  SampleOptions options;
  options.views = {view};
  options.image_token = 300;
  return options;
}

Draw draw(std::int64_t index, std::uint64_t position = 0) { return {position, 0, index, 0}; }

/// A picture with a prompt, one without, text with a prompt and text without.
class Pairs : public ::testing::Test {
 protected:
  void SetUp() override {
    picture_ = synthetic_page("p", 1).image;
    add("asked", encode_png(picture_), "<image>\nHow many words?", "fifteen of them");
    add("unasked", encode_png(synthetic_page("p", 2).image), "", "plain reading");
    add("question", {}, "What is ink?", "a dark liquid");
    add("text", {}, "", "and so it goes on");
    write(folder_.path());
  }
  void add(const std::string& id, std::vector<std::uint8_t> picture, const std::string& prompt,
           const std::string& answer) {
    Pair pair;
    pair.id = "mine/" + id;
    pair.document = "mine";
    pair.kind = id;
    pair.picture = std::move(picture);
    pair.prompt = prompt;
    pair.answer = answer;
    writer_.add(pair_record(pair, test_tokenizer()));
  }
  void write(const std::filesystem::path& folder) {
    writer_.write(folder / "shard-00000.h5", testing::test_tokenizer_sha256());
  }
  SampleSet set(std::int64_t longest = 8192) const {
    PairOptions options;
    options.shards = std::make_shared<const ShardSet>(folder_.path());
    options.prompt = "<image>\nRead.";
    options.max_response_tokens = longest;
    return SampleSet({{make_pair_source(options, test_tokenizer())}}, pair_options());
  }

  TemporaryFolder folder_;
  ShardWriter writer_;
  Image picture_;
};

TEST_F(Pairs, HaveTheirOwnPromptAndAnswer) {
  const SampleSet samples = set();
  ASSERT_EQ(samples.units(0), 4);
  const std::vector<std::string> prompts{"\nHow many words?", "\nRead.", "What is ink?", ""};
  const std::vector<std::string> answers{"fifteen of them", "plain reading", "a dark liquid",
                                         "and so it goes on"};
  const std::vector<std::string> kinds{"asked", "unasked", "question", "text"};
  for (std::int64_t i = 0; i < 4; ++i) {
    SCOPED_TRACE(i);
    const auto at = static_cast<std::size_t>(i);
    const Sample sample = samples.make(draw(i));
    EXPECT_EQ(sample.text, answers[at]);
    EXPECT_EQ(sample.kind, kinds[at]);
    EXPECT_EQ(sample.page_id, "mine/" + kinds[at]);
    EXPECT_EQ(sample.document, "mine");
    EXPECT_EQ(sample.response_ids, test_tokenizer().encode(answers[at]));
    EXPECT_EQ(sample.prompt_ids, test_tokenizer().encode(prompts[at]));
    EXPECT_EQ(sample.image_tokens > 0, i < 2);
    EXPECT_EQ(sample.global.empty(), i >= 2);
    EXPECT_EQ(samples.trained_count(draw(i)),
              static_cast<std::int64_t>(sample.response_ids.size()) + 1);
    EXPECT_EQ(samples.token_count(draw(i)),
              2 + sample.image_tokens +
                  static_cast<std::int64_t>(sample.prompt_ids.size() + sample.response_ids.size()));
    EXPECT_LE(samples.token_count(draw(i)), samples.longest());
    EXPECT_EQ(samples.key(draw(i)), sample.key);
    EXPECT_TRUE(samples.make(draw(i), 0, false).global.empty());
  }
}

TEST_F(Pairs, ThatAreReadHaveAPicture) {
  PairOptions options;
  options.shards = std::make_shared<const ShardSet>(folder_.path());
  EXPECT_TRUE(options.shards->holds_pairs());
  options.pictures_only = true;
  const auto source = make_pair_source(options, test_tokenizer());
  EXPECT_EQ(source->count(), 2);
  EXPECT_EQ(source->left_out().empty, 2);
  PairSettings settings;
  settings.folder = folder_.path();
  OpenShards shards;
  EXPECT_EQ(settings.open({test_tokenizer(), shards})->count(), 4);
  EXPECT_EQ(
      settings.open({.tokenizer = test_tokenizer(), .shards = shards, .is_read = true})->count(),
      2);
}

TEST_F(Pairs, AreToldFromPages) {
  const TemporaryFolder pages;
  ShardWriter writer;
  writer.add(testing::shard_page(synthetic_page("p", 1)));
  writer.write(pages.path() / "shard-00000.h5", testing::test_tokenizer_sha256());
  EXPECT_FALSE(ShardSet(pages.path()).holds_pairs());
}

TEST_F(Pairs, ShowTheWholePictureInItsViews) {
  const SampleSet samples = set();
  const ImageViews want = make_views(picture_, pair_options().views[0]);
  const Sample sample = samples.make(draw(0));
  ASSERT_GT(want.grid.tiles(), 1);
  EXPECT_EQ(samples.lengths(draw(0)).grid, want.grid);
  EXPECT_EQ(sample.global.pixels, want.global.pixels);
  ASSERT_EQ(sample.local.size(), want.local.size());
  for (std::size_t i = 0; i < want.local.size(); ++i)
    EXPECT_EQ(sample.local[i].pixels, want.local[i].pixels);
  EXPECT_EQ(samples.whole_page(draw(0)).picture.pixels, picture_.pixels);
  EXPECT_TRUE(throws_with([&] { samples.whole_page(draw(3)); }, {"is no part of a page"}));
}

TEST_F(Pairs, OnlyTheAnswerIsTrained) {
  const SampleSet samples = set();
  const std::vector<Sample> one{samples.make(draw(0))};
  const Batch batch = make_batch(one, samples.options(), {});
  std::vector<std::int32_t> trained;
  const auto* labels = batch.labels.data<std::int32_t>();
  const std::int64_t before =
      1 + one[0].image_tokens + static_cast<std::int64_t>(one[0].prompt_ids.size());
  for (std::int64_t i = 0; i < batch.labels.numel(); ++i) {
    EXPECT_EQ(labels[i] == kIgnoredLabel, i < before) << i;
    if (labels[i] != kIgnoredLabel) trained.push_back(labels[i]);
  }
  std::vector<std::int32_t> want = test_tokenizer().encode("fifteen of them");
  want.push_back(samples.options().end_token);
  EXPECT_EQ(trained, want);
}

TEST_F(Pairs, KeysTellContentsApart) {
  std::set<std::string> keys;
  const auto insert_keys = [&](std::int64_t count) {
    const SampleSet samples = set();
    for (std::int64_t i = 0; i < count; ++i) keys.insert(samples.key(draw(i)));
  };
  insert_keys(4);
  // The same ids again: another picture, another prompt, another answer.
  add("asked", encode_png(synthetic_page("q", 9).image), "<image>\nHow many words?",
      "fifteen of them");
  add("unasked", encode_png(synthetic_page("p", 2).image), "<image>\nRead!", "plain reading");
  add("question", {}, "What is ink?", "a dark fluid");
  write(folder_.path());
  insert_keys(3);
  EXPECT_EQ(keys.size(), 7u);
}

TEST_F(Pairs, LongAnswersAreLeftOut) {
  const auto tokens =
      static_cast<std::int64_t>(test_tokenizer().encode("and so it goes on").size());
  const SampleSet samples = set(tokens - 1);
  EXPECT_EQ(samples.units(0) + samples.dropped(0), 4);
  EXPECT_GE(samples.dropped(0), 1);
  for (std::int64_t i = 0; i < samples.units(0); ++i)
    EXPECT_LT(samples.make(draw(i)).response_ids.size(), static_cast<std::size_t>(tokens));
  EXPECT_TRUE(throws_with([&] { set(1); }, {"no pair of", "(4 did not)"}));
  EXPECT_TRUE(throws_with([&] { set(0); }, {"max_response_tokens must be >= 1, got 0"}));
}

TEST_F(Pairs, PagesOfShardsArePairsAsWell) {
  PairOptions options;
  options.shards = std::make_shared<const ShardSet>(testing::fixture("shards/format1"));
  const SampleSet pairs({{make_pair_source(options, test_tokenizer())}}, pair_options());
  CutOptions cut;
  cut.shards = options.shards;
  const SampleSet pages({{make_cut_source(cut, test_tokenizer())}}, pair_options());
  for (std::int64_t i = 0; i < 2; ++i) {
    const Sample got = pairs.make(draw(i)), want = pages.make(draw(i));
    EXPECT_EQ(got.text, want.text);
    EXPECT_EQ(got.prompt_ids, want.prompt_ids);
    EXPECT_EQ(got.response_ids, want.response_ids);
    EXPECT_EQ(got.global.pixels, want.global.pixels);
    EXPECT_EQ(pairs.token_count(draw(i)), pages.token_count(draw(i)));
  }
}

/// Pages are cut from what has a picture; text is read of all.
TEST_F(Pairs, OtherSourcesTakeWhatTheyCan) {
  CutOptions cut;
  cut.shards = std::make_shared<const ShardSet>(folder_.path());
  const auto pages = make_cut_source(cut, test_tokenizer());
  EXPECT_EQ(pages->count(), 2);
  EXPECT_EQ(pages->dropped(), 2);
  EXPECT_EQ(make_text_source(cut, test_tokenizer())->count(), 4);
}

TEST_F(Pairs, TokensOutsideTheVocabularyAreAnError) {
  ShardPage record;
  record.id = "mine/bad";
  record.text = "?";
  record.ids = {1 << 30};
  writer_.add(record);
  write(folder_.path());
  EXPECT_TRUE(throws_with([&] { set().make(draw(0)); },
                          {"mine/bad", "tokens must be in 0 ..", "got 1073741824"}));
}

TEST_F(Pairs, AreLoadedWithPicturesAndTextMixed) {
  LoaderOptions options;
  options.global_batch = 4;
  options.shuffle = false;
  options.workers = 2;
  Loader loader(std::make_shared<const SampleSet>(set()), options);
  const LoadedBatch batch = loader.next();
  EXPECT_EQ(batch.samples, 4);
  EXPECT_EQ(batch.trained_tokens, batch.step_trained_tokens);
  ASSERT_EQ(batch.has_pixels.size(), 2u);
  EXPECT_EQ(batch.pixel_values.dim(0), 2);
}

}  // namespace
}  // namespace lectern
