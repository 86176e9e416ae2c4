#include "data/samples/sample.h"

#include "core/error.h"
#include "data/samples/cut.h"
#include "data/samples/drawn.h"
#include "data/samples/text.h"
#include "tests/data/synthetic_pages.h"
#include "tests/data/text_sample.h"
#include "tests/data/view_tokens.h"
#include "tests/testing.h"

#include <set>

namespace lectern {
namespace {

using testing::synthetic_page;
using testing::SyntheticPage;
using testing::TemporaryFolder;
using testing::test_tokenizer;
using testing::throws_with;

ViewOptions small_view(std::int64_t global = 128, std::int64_t tile = 64) {
  ViewOptions view;
  view.global_size = global;
  view.tile_size = tile;
  testing::set_small_tokens(view);
  return view;
}

SampleOptions small_options() {
  SampleOptions options;
  options.views = {small_view()};
  options.image_token = 300;
  return options;
}

/// Two shards of three pages: five lines of three words each.
class Samples : public ::testing::Test {
 protected:
  void SetUp() override {
    testing::write_shards(folder_.path(), 2, 3);
    shards_ = std::make_shared<const ShardSet>(folder_.path());
  }
  CutOptions source(Level level) const {
    CutOptions out;
    out.shards = shards_;
    out.level = level;
    return out;
  }
  SampleSet set(const CutOptions& from, const SampleOptions& options = small_options()) const {
    return SampleSet({{make_cut_source(from, test_tokenizer())}}, options);
  }
  SampleSet text() const {
    return SampleSet({{make_text_source(source(Level::page), test_tokenizer())}}, small_options());
  }

  TemporaryFolder folder_;
  std::shared_ptr<const ShardSet> shards_;
};

Draw unit(std::int64_t index, std::uint64_t position = 0) { return {position, 0, index, 0}; }

TEST_F(Samples, WordsStandAtAFixedPlaceOfAWhiteView) {
  SampleOptions options = small_options();
  options.margin = 6;
  options.padding = 2;
  const SampleSet samples = set(source(Level::word), options);
  ASSERT_EQ(samples.units(0), 6 * 15);
  EXPECT_EQ(samples.dropped(0), 0);
  for (const std::int64_t index : {0, 7, 14, 15, 89}) {
    const Sample sample = samples.make(unit(index));
    const std::int64_t page = index / 15, word = index % 15;
    const SyntheticPage from = synthetic_page("doc", page + 1);
    const Word& want = from.page.lines[static_cast<std::size_t>(word / 3)]
                           .words[static_cast<std::size_t>(word % 3)];
    EXPECT_EQ(sample.text, want.text);
    EXPECT_EQ(test_tokenizer().decode(sample.response_ids), want.text);
    EXPECT_EQ(sample.page_id, fmt::format("doc/{:04}", page + 1));
    EXPECT_EQ(sample.document, "doc");
    EXPECT_EQ(sample.box.left, want.box.left);
    ASSERT_EQ(sample.global.width, 128);
    ASSERT_EQ(sample.global.height, 128);
    EXPECT_TRUE(sample.local.empty());
    // The box without its padding begins at margin + padding; 16 pixels high, in the middle.
    const auto width = static_cast<std::int64_t>(want.box.right - want.box.left);
    const std::int64_t left = 6 + 2, top = (128 - (16 + 4)) / 2 + 2;
    for (std::int64_t y = 0; y < 128; ++y)
      for (std::int64_t x = 0; x < 128; ++x) {
        const bool inside = x >= left && x < left + width && y >= top && y < top + 16;
        const int expected = inside ? testing::ink(page + 1, word, x - left, y - top) : 255;
        ASSERT_EQ(sample.global.row(y)[3 * x], expected) << x << " " << y;
        ASSERT_EQ(sample.global.row(y)[3 * x + 2], expected) << x << " " << y;
      }
  }
}

TEST_F(Samples, TextIsScaledToAHeightAndMadeToFit) {
  SampleOptions options = small_options();
  options.padding = 0;
  options.text_height = 32;
  const auto inked = [](const Image& image) {
    std::array<std::int64_t, 4> box{image.width, image.height, 0, 0};
    for (std::int64_t y = 0; y < image.height; ++y)
      for (std::int64_t x = 0; x < image.width; ++x)
        if (image.row(y)[3 * x] != 255)
          box = {std::min(box[0], x), std::min(box[1], y), std::max(box[2], x + 1),
                 std::max(box[3], y + 1)};
    return box;
  };
  // "p1w0" is 32 x 16 pixels, so 64 x 32 now; the ink is never white, but bicubic may overshoot.
  const auto word = inked(set(source(Level::word), options).make(unit(0)).global);
  EXPECT_NEAR(static_cast<double>(word[0]), 4, 1);
  EXPECT_NEAR(static_cast<double>(word[2]), 4 + 64, 1);
  EXPECT_NEAR(static_cast<double>(word[3] - word[1]), 32, 2);
  // A line of 112 x 16 would be 224 wide: it is made to fit into 128 - 2 * 4 pixels.
  const auto line = inked(set(source(Level::line), options).make(unit(0)).global);
  EXPECT_NEAR(static_cast<double>(line[0]), 4, 1);
  EXPECT_NEAR(static_cast<double>(line[2]), 124, 1);
  EXPECT_NEAR(static_cast<double>(line[3] - line[1]), 16.0 * 120 / 112, 2);
}

TEST_F(Samples, TextAtTheTopBeginsAtTheMargin) {
  SampleOptions options = small_options();
  options.padding = 0;
  const Sample middle = set(source(Level::word), options).make(unit(0));
  options.at_top = true;
  const Sample top = set(source(Level::word), options).make(unit(0));
  EXPECT_NE(top.key, middle.key);
  EXPECT_EQ(top.text, middle.text);
  const std::int64_t down = (128 - 16) / 2 - options.margin;  // "p1w0" is 16 pixels high
  for (std::int64_t y = 0; y < 128; ++y)
    for (std::int64_t x = 0; x < 128; ++x)
      ASSERT_EQ(top.global.row(y)[3 * x], y + down < 128 ? middle.global.row(y + down)[3 * x] : 255)
          << x << " " << y;
}

TEST_F(Samples, JitterMovesTextWithThePositionOnly) {
  SampleOptions options = small_options();
  options.jitter_pixels = 3;
  options.seed = 5;
  const SampleSet samples = set(source(Level::word), options);
  std::set<std::string> keys;
  for (std::uint64_t position = 0; position < 60; ++position) {
    const Sample sample = samples.make(unit(4, position));
    EXPECT_EQ(sample.global.pixels, samples.make(unit(4, position)).global.pixels);
    keys.insert(sample.key);
  }
  EXPECT_GT(keys.size(), 20u);
  EXPECT_LE(keys.size(), 49u);
}

TEST_F(Samples, LinesAndRegions) {
  const SampleSet lines = set(source(Level::line));
  EXPECT_EQ(lines.units(0), 30);
  EXPECT_EQ(lines.make(unit(6)).text, "p2w3 p2w4 p2w5");
  CutOptions from = source(Level::region);
  from.region_lines = 3;
  const SampleSet regions = set(from);
  // Five lines a page, a paragraph ends after four: 3 + 1 + 1.
  ASSERT_EQ(regions.units(0), 18);
  const Sample first = regions.make(unit(0)), second = regions.make(unit(1));
  EXPECT_EQ(first.text, "p1w0 p1w1 p1w2\np1w3 p1w4 p1w5\np1w6 p1w7 p1w8");
  EXPECT_EQ(test_tokenizer().decode(first.response_ids), first.text);
  EXPECT_EQ(first.response_ids, test_tokenizer().encode(first.text));
  EXPECT_EQ(second.text, "p1w9 p1w10 p1w11");
  EXPECT_EQ(first.box.top, 10);
  EXPECT_EQ(first.box.bottom, 66);
  // The region's corner lies at the margin, padding included.
  EXPECT_EQ(first.global.row(5)[3 * 5], testing::ink(1, 0, 0, 0));
  EXPECT_EQ(first.global.row(4)[3 * 5], 255);
}

TEST_F(Samples, LinesAreCutIntoRunsAndRegionsIntoWindows) {
  // Words of 32 to 40 pixels with gaps of 8: two fit into 90 pixels, the third is a run of its own.
  CutOptions from = source(Level::line);
  from.cut_width = 90;
  const SampleSet runs = set(from);
  ASSERT_EQ(runs.units(0), 60);
  EXPECT_EQ(runs.make(unit(0)).text, "p1w0 p1w1");
  EXPECT_EQ(runs.make(unit(1)).text, "p1w2");
  EXPECT_EQ(runs.make(unit(1)).box.left, 90);
  const Sample run = runs.make(unit(3));
  EXPECT_EQ(run.text, "p1w5");
  EXPECT_EQ(run.response_ids, test_tokenizer().encode(run.text));
  EXPECT_EQ(runs.trained_count(unit(0)),
            static_cast<std::int64_t>(test_tokenizer().encode("p1w0 p1w1").size()) + 1);

  from = source(Level::region);
  from.cut_width = 90;
  from.region_lines = 3;
  const SampleSet windows = set(from);
  // Three lines, then the paragraph's fourth, then the fifth: two windows each.
  ASSERT_EQ(windows.units(0), 6 * 6);
  const Sample left = windows.make(unit(0)), right = windows.make(unit(1));
  EXPECT_EQ(left.text, "p1w0 p1w1\np1w3 p1w4\np1w6 p1w7");
  EXPECT_EQ(right.text, "p1w2\np1w5\np1w8");
  EXPECT_EQ(right.box.left, 90);
  // The window begins at the margin, padding included; the word left of it is not there.
  EXPECT_EQ(right.global.row(5)[3 * 5], testing::ink(1, 2, 0, 0));
  EXPECT_EQ(right.global.row(5)[3 * 4], 255);
  // Every other pixel of the window is white: none of the words that it cuts is seen.
  std::int64_t inked = 0;
  for (std::int64_t y = 0; y < 128; ++y)
    for (std::int64_t x = 0; x < 128; ++x) inked += right.global.row(y)[3 * x] != 255;
  EXPECT_EQ(inked, 3 * 32 * 16);
  EXPECT_NE(windows.make(unit(0)).key, windows.make(unit(1)).key);
  from.cut_width = -1;
  EXPECT_TRUE(throws_with([&] { set(from); }, {"cut_width must be >= 0, got -1"}));
}

TEST_F(Samples, JitterNeverMovesTextOutOfTheView) {
  SampleOptions options = small_options();
  options.jitter_pixels = 100;
  const SampleSet samples = set(source(Level::word), options);
  const auto ink = [](const Image& image) {
    std::int64_t count = 0;
    for (std::size_t i = 0; i < image.pixels.size(); i += 3) count += image.pixels[i] != 255;
    return count;
  };
  for (std::uint64_t position = 0; position < 40; ++position)
    EXPECT_EQ(ink(samples.make(unit(0, position)).global), 32 * 16);
}

TEST_F(Samples, DrawnSourcesMixWithShards) {
  SyntheticOptions look;
  look.level = Level::line;
  DrawnOptions drawn;
  drawn.synthetic = std::make_shared<const SyntheticSource>(testing::english_corpus(), look);
  drawn.max_response_tokens = 4;
  const SampleSet samples({{make_cut_source(source(Level::word), test_tokenizer())},
                           {make_drawn_source(drawn, test_tokenizer())}},
                          small_options());
  EXPECT_EQ(samples.sampler_sources()[1].units, std::int64_t{1} << 32);
  for (std::int64_t i = 0; i < 50; ++i) {
    const Draw draw{0, 1, i, 0};
    const Sample sample = samples.make(draw);
    EXPECT_EQ(sample.kind, "line");
    EXPECT_LE(sample.response_ids.size(), 4u);
    EXPECT_EQ(static_cast<std::int64_t>(sample.response_ids.size()) + 1,
              samples.trained_count(draw));
    EXPECT_EQ(test_tokenizer().decode(sample.response_ids), sample.text);
    EXPECT_EQ(sample.global.width, 128);
  }
  EXPECT_TRUE(throws_with([&] { samples.whole_page({0, 1, 0, 0}); }, {"draw_page"}));
  EXPECT_TRUE(throws_with([&] { set(source(Level::character)); }, {"no level character"}));
  look.level = Level::page;
  look.page_width = {100, 120};
  drawn.synthetic = std::make_shared<const SyntheticSource>(testing::english_corpus(), look);
  drawn.max_response_tokens = 60;
  const SampleSet pages({{make_drawn_source(drawn, test_tokenizer())}}, small_options());
  for (std::int64_t i = 0; i < 6; ++i) {
    const Sample page = pages.make(unit(i));
    const ViewGrid grid = pages.lengths(unit(i)).grid;
    EXPECT_EQ(static_cast<int>(page.local.size()), grid.tiles());
    EXPECT_LE(pages.token_count(unit(i)), pages.longest());
  }
}

TEST_F(Samples, PagesHaveTheImageViews) {
  SampleOptions options = small_options();
  const SampleSet samples = set(source(Level::page), options);
  ASSERT_EQ(samples.units(0), 6);
  const SyntheticPage from = synthetic_page("doc", 3);
  const ImageViews want = make_views(from.image, options.views[0]);
  ASSERT_GT(want.grid.tiles(), 1);
  const Sample sample = samples.make(unit(2));
  EXPECT_EQ(sample.text, from.page.text);
  EXPECT_EQ(sample.response_ids, test_tokenizer().encode(from.page.text));
  EXPECT_EQ(sample.columns, want.grid.columns);
  EXPECT_EQ(sample.rows, want.grid.rows);
  EXPECT_EQ(sample.global.pixels, want.global.pixels);
  ASSERT_EQ(sample.local.size(), want.local.size());
  for (std::size_t i = 0; i < want.local.size(); ++i)
    EXPECT_EQ(sample.local[i].pixels, want.local[i].pixels);
  EXPECT_EQ(sample.image_tokens, image_token_count(options.views[0], want.grid));
  EXPECT_EQ(samples.lengths(unit(2)).grid, want.grid);
}

TEST_F(Samples, TextHasNoImage) {
  const Sample sample = text().make(unit(1));
  EXPECT_EQ(sample.kind, "text");
  EXPECT_TRUE(sample.global.empty());
  EXPECT_EQ(sample.image_tokens, 0);
  EXPECT_TRUE(sample.prompt_ids.empty());
  EXPECT_EQ(sample.text, synthetic_page("doc", 2).page.text);
}

TEST_F(Samples, CountsAreKnownWithoutReading) {
  SampleOptions options = small_options();
  options.views = {small_view(), small_view(64, 32)};
  std::vector<std::shared_ptr<const SampleSource>> sources{
      make_text_source(source(Level::page), test_tokenizer())};
  for (const Level level : {Level::word, Level::line, Level::region, Level::page})
    sources.push_back(make_cut_source(source(level), test_tokenizer()));
  for (const auto& source : sources) {
    SCOPED_TRACE(source->describe());
    const SampleSet samples({{source}}, options);
    for (int view = 0; view < 2; ++view) {
      std::int64_t longest = 0;
      for (std::int64_t i = 0; i < samples.units(0); ++i) {
        const Sample sample = samples.make(unit(i), view, false);
        EXPECT_TRUE(sample.global.empty());
        EXPECT_EQ(samples.trained_count(unit(i)),
                  static_cast<std::int64_t>(sample.response_ids.size()) + 1);
        const auto length =
            static_cast<std::int64_t>(2 + sample.prompt_ids.size() + sample.response_ids.size()) +
            sample.image_tokens;
        EXPECT_EQ(samples.token_count(unit(i), view), length);
        longest = std::max(longest, length);
        EXPECT_EQ(samples.key(unit(i), view), sample.key);
      }
      EXPECT_EQ(samples.longest(view), longest);
    }
  }
}

TEST_F(Samples, KeysNameTheImage) {
  SampleOptions options = small_options();
  options.views = {small_view(), small_view(64, 32)};
  std::set<std::string> keys;
  std::size_t made = 0;
  for (const Level level : {Level::word, Level::line, Level::region, Level::page}) {
    const SampleSet samples = set(source(level), options);
    for (std::int64_t i = 0; i < samples.units(0); ++i)
      for (int view = 0; view < 2; ++view, ++made) keys.insert(samples.key(unit(i), view));
  }
  EXPECT_EQ(keys.size(), made);
}

TEST_F(Samples, FiltersDropAndCount) {
  CutOptions from = source(Level::word);
  from.max_characters = 4;  // "p1w0" .. "p1w9" pass, "p1w10" .. do not
  const SampleSet by_length = set(from);
  EXPECT_EQ(by_length.units(0), 60);
  EXPECT_EQ(by_length.dropped(0), 30);
  EXPECT_EQ(by_length.make(unit(10)).text, "p2w0");
  from.max_characters = 0;
  from.max_response_tokens = 1;
  EXPECT_TRUE(throws_with([&] { set(from); }, {"no word of", "passes the filters (90 did not)"}));

  ShardPage page = testing::shard_page(synthetic_page("x", 1, 1, 1));
  page.words = {};
  const auto add = [&](const std::string& text, const Box& box) {
    page.words.push_back(text, box, test_tokenizer().encode(text));
  };
  add("good", {10, 10, 50, 26});
  add("schön", {10, 10, 50, 26});
  add("thin", {10, 10, 50, 11});       // a line without height
  add("upwards", {10, 0, 20, 50});     // rotated
  add("outside", {10, 10, 50, 5000});  // not on the page
  add("", {10, 10, 50, 26});
  page.first_word = {0, page.words.size()};
  const TemporaryFolder other;
  ShardWriter writer;
  writer.add(page);
  writer.write(other.path() / "shard-00000.h5", testing::test_tokenizer_sha256());
  from = source(Level::word);
  from.shards = std::make_shared<const ShardSet>(other.path());
  EXPECT_EQ(set(from).units(0), 2);
  EXPECT_EQ(set(from).dropped(0), 4);
  from.ascii_only = true;
  EXPECT_EQ(set(from).units(0), 1);
  EXPECT_EQ(set(from).make(unit(0)).text, "good");
}

TEST_F(Samples, SamplerSourcesHaveWindowsOfPages) {
  CutOptions from = source(Level::word);
  from.window_pages = 2;
  const SampleSet samples({{make_cut_source(from, test_tokenizer()), 0.25},
                           {make_cut_source(source(Level::page), test_tokenizer())}},
                          small_options());
  const auto sources = samples.sampler_sources();
  ASSERT_EQ(sources.size(), 2u);
  EXPECT_EQ(sources[0].units, 90);
  EXPECT_EQ(sources[0].window, 30);
  EXPECT_EQ(sources[0].weight, 0.25);
  EXPECT_EQ(sources[1].units, 6);
  EXPECT_EQ(sources[1].window, 0);
  EXPECT_EQ(samples.make({0, 1, 3, 0}).kind, "page");
}

TEST_F(Samples, BadOptionsAreRefused) {
  const auto with = [&](auto change) {
    return [this, change] {
      SampleOptions options = small_options();
      CutOptions from = source(Level::word);
      change(options, from);
      set(from, options);
    };
  };
  using O = SampleOptions;
  using S = CutOptions;
  EXPECT_TRUE(throws_with(with([](O& o, S&) { o.views.clear(); }), {"views must not be empty"}));
  EXPECT_TRUE(throws_with(with([](O& o, S&) { o.margin = 64; }), {"margin must be in 0 .. 63"}));
  EXPECT_TRUE(throws_with(with([](O& o, S&) { o.padding = -1; }), {"padding", "got -1"}));
  EXPECT_TRUE(throws_with(with([](O& o, S&) { o.views[0].global_size = 8; }), {"patch of 16"}));
  EXPECT_TRUE(throws_with(with([](O&, S& s) { s.region_lines = 0; }), {"region_lines"}));
  EXPECT_TRUE(
      throws_with(with([](O&, S& s) { s.max_response_tokens = 0; }), {"max_response_tokens"}));
  EXPECT_TRUE(
      throws_with(with([](O&, S& s) { s.prompt = "Read <image>"; }), {"<image> must come"}));
  EXPECT_TRUE(throws_with(with([](O&, S& s) { s.shards = nullptr; }), {"has no shards"}));
  EXPECT_TRUE(throws_with([] { SampleSet({}, {}); }, {"sources must not be empty"}));
  EXPECT_TRUE(throws_with([] { SampleSet({{nullptr}}, {}); }, {"must not be null"}));
  const Tokenizer other = Tokenizer::load(testing::fixture("tokenizer/qwen2/tokenizer.json"));
  EXPECT_TRUE(throws_with([&] { make_cut_source(source(Level::word), other); },
                          {"was made with another tokenizer"}));
  EXPECT_TRUE(throws_with([] { level_from("letter"); }, {"level must be", "\"letter\""}));
  for (const Level level : {Level::character, Level::word, Level::line, Level::region, Level::page})
    EXPECT_EQ(level_from(name_of(level)), level);
}

}  // namespace
}  // namespace lectern
