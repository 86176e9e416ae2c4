// Drawn samples: the same wherever and whenever they are drawn, saying exactly what their truth
// says, and whole inside their view.
#include "data/synthetic/synthetic.h"

#include "core/error.h"
#include "data/synthetic/contact_sheet.h"
#include "data/synthetic/image_effects.h"
#include "data/synthetic/text.h"
#include "data/text/utf8.h"
#include "tests/data/text_sample.h"
#include "tests/testing.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>
#include <thread>

namespace lectern {
namespace {

using testing::english_corpus;
using testing::TemporaryFolder;
using testing::throws_with;

SyntheticOptions plain(Level level) {
  SyntheticOptions out;
  out.level = level;
  out.seed = 11;
  out.max_characters = level == Level::word ? 12 : 24;
  return out;
}

/// Everything that varies is on.
SyntheticOptions busy(Level level) {
  SyntheticOptions out = plain(level);
  out.rotation_degrees = 2;
  out.blur = 1;
  out.noise = 10;
  out.jpeg_share = 0.5;
  out.ink = 80;
  out.paper = 200;
  out.colour_share = 0.3;
  out.distinct_share = 0.3;
  out.random_share = 0.1;
  return out;
}

Image drawn(const SyntheticSource& source, std::uint64_t index, const Placement& placement = {}) {
  return source.options().level == Level::page ? source.draw_page(index)
                                               : source.draw(index, placement);
}

/// Smallest box of pixels darker than `paper`.
std::array<std::int64_t, 4> ink_box(const Image& image, int paper = 255) {
  std::array<std::int64_t, 4> box{image.width, image.height, 0, 0};
  for (std::int64_t y = 0; y < image.height; ++y)
    for (std::int64_t x = 0; x < image.width; ++x)
      if (image.row(y)[3 * x] < paper)
        box = {std::min(box[0], x), std::min(box[1], y), std::max(box[2], x + 1),
               std::max(box[3], y + 1)};
  return box;
}

TEST(Synthetic, ASampleIsAFunctionOfSeedAndIndex) {
  for (const Level level :
       {Level::character, Level::word, Level::line, Level::region, Level::page}) {
    SyntheticOptions options = busy(level);
    options.page_width = {200, 260};
    const SyntheticSource source(english_corpus(), options), again(english_corpus(), options);
    options.seed = 12;
    const SyntheticSource other(english_corpus(), options);
    std::vector<Image> first;
    int different = 0;
    for (std::uint64_t i = 0; i < 12; ++i) first.push_back(drawn(source, i));
    for (const std::uint64_t i : {11, 3, 0, 7, 3}) {  // another order, another object
      EXPECT_EQ(drawn(again, i).pixels, first[i].pixels) << name_of(level) << i;
      EXPECT_EQ(again.text(i), source.text(i));
      different += drawn(other, i).pixels != first[i].pixels;
    }
    EXPECT_EQ(different, 5) << name_of(level);
    EXPECT_EQ(source.fingerprint(), again.fingerprint());
    EXPECT_NE(source.fingerprint(), other.fingerprint());
  }
}

TEST(Synthetic, ThreadsDrawTheSamePixels) {
  const SyntheticSource source(english_corpus(), busy(Level::line));
  std::vector<std::vector<std::uint8_t>> here;
  for (std::uint64_t i = 0; i < 40; ++i) here.push_back(source.draw(i, {}).pixels);
  std::vector<std::vector<std::uint8_t>> there(80);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (std::size_t i = t; i < there.size(); i += 4)  // every sample in two threads
        there[i] = source.draw((i + i / 40) % 40, {}).pixels;
    });
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < there.size(); ++i) EXPECT_EQ(there[i], here[(i + i / 40) % 40]) << i;
}

TEST(Synthetic, TruthIsWhatTheFaceCanSpell) {
  for (const Level level : {Level::character, Level::word, Level::line, Level::region}) {
    const SyntheticSource source(english_corpus(), busy(level));
    std::set<std::string> faces, texts;
    for (std::uint64_t i = 0; i < 300; ++i) {
      const std::string text = source.text(i);
      ASSERT_FALSE(text.empty());
      EXPECT_EQ(text.front() == ' ' || text.back() == ' ', false) << text;
      faces.insert(source.face(i).description);
      texts.insert(text);
      std::istringstream lines(text);
      // The constructor throws where a glyph is missing.
      for (std::string line; std::getline(lines, line);)
        EXPECT_NO_THROW(LineOutline(source.face(i), line)) << line;
    }
    EXPECT_GT(faces.size(), 8u);
    EXPECT_GT(texts.size(), level == Level::character ? 20u : 100u);
  }
}

TEST(Synthetic, AWordLiesInTheMiddleOrAtTheTop) {
  const SyntheticSource words(english_corpus(), plain(Level::word));
  for (std::uint64_t i = 0; i < 30; ++i) {
    const auto middle = ink_box(words.draw(i, {.size = 128}), 200);
    const auto top = ink_box(words.draw(i, {.size = 128, .at_top = true}), 200);
    EXPECT_NEAR(static_cast<double>(top[0]), static_cast<double>(middle[0]), 1) << i;
    EXPECT_NEAR(static_cast<double>(top[3] - top[1]), static_cast<double>(middle[3] - middle[1]),
                1);
    EXPECT_LT(top[3], 40) << i;  // ems of 12 to 16 pixels below a margin of 4
    EXPECT_GT(middle[1], 40) << i;
  }
}

TEST(Synthetic, LengthsAreKept) {
  SyntheticOptions options = plain(Level::word);
  options.min_characters = 3;
  options.max_characters = 5;
  options.random_share = 0.3;
  const SyntheticSource words(english_corpus(), options);
  for (std::uint64_t i = 0; i < 300; ++i) {
    const auto length = count_characters(words.text(i));
    EXPECT_TRUE(length >= 3 && length <= 5) << words.text(i);
  }
  options = plain(Level::line);
  options.max_characters = 20;
  const SyntheticSource lines(english_corpus(), options);
  std::int64_t most = 0;
  for (std::uint64_t i = 0; i < 300; ++i) {
    const auto length = count_characters(lines.text(i));
    EXPECT_LE(length, 20);
    most = std::max(most, length);
  }
  EXPECT_GT(most, 15);
  options = plain(Level::region);
  options.region_lines = 3;
  const SyntheticSource regions(english_corpus(), options);
  std::set<std::int64_t> counts;
  for (std::uint64_t i = 0; i < 100; ++i) {
    const std::string text = regions.text(i);
    counts.insert(1 + std::count(text.begin(), text.end(), '\n'));
  }
  EXPECT_EQ(counts, (std::set<std::int64_t>{2, 3}));
  // Later attempts say less, until there is next to nothing left.
  EXPECT_LE(regions.text(5, 15).size(), 12u);
  EXPECT_NE(regions.text(5, 1), regions.text(5, 0));
}

TEST(Synthetic, AllInkIsInsideTheViewWhateverTheJitter) {
  for (const Level level : {Level::character, Level::word, Level::line, Level::region})
    for (const std::int64_t jitter : {0, 5, 200}) {
      SyntheticOptions options = plain(level);
      options.rotation_degrees = 2;
      options.font_size = {8, 40};  // most do not fit and are made smaller
      const SyntheticSource source(english_corpus(), options);
      for (std::uint64_t i = 0; i < 60; ++i) {
        const Image image = source.draw(i, {64, 4, jitter});
        const auto box = ink_box(image);
        EXPECT_TRUE(box[0] >= 1 && box[1] >= 1 && box[2] <= 63 && box[3] <= 63)
            << source.text(i) << " " << source.face(i).description << " " << box[0] << " " << box[1]
            << " " << box[2] << " " << box[3];
        EXPECT_LT(box[0], box[2]);
      }
    }
}

TEST(Synthetic, JitterAndSizeStayInTheirRanges) {
  SyntheticOptions options = plain(Level::word);
  options.font_size = {14, 14};
  options.stretch = 0;
  options.max_characters = 4;
  options.fonts = {"DejaVu Sans Mono"};
  options.bold_share = options.italic_share = 0;
  const SyntheticSource source(english_corpus(), options);
  std::int64_t least = 1000, most = 0;
  for (std::uint64_t i = 0; i < 200; ++i) {
    const auto still = ink_box(source.draw(i, {64, 20, 0}));
    const auto moved = ink_box(source.draw(i, {64, 20, 6}));
    EXPECT_EQ(still[2] - still[0] >= 1, true);
    const std::int64_t by = moved[0] - still[0];
    EXPECT_LE(std::abs(by), 7);
    EXPECT_LE(std::abs(moved[1] - still[1]), 7);
    least = std::min(least, by);
    most = std::max(most, by);
    // 4 letters of 0.602 em, from the margin on, give or take half a pixel and a side bearing.
    EXPECT_GE(still[0], 18);
    EXPECT_LE(still[2], 20 + 4 * 0.602 * 14 + 2);
  }
  EXPECT_LE(least, -4);
  EXPECT_GE(most, 4);
}

TEST(Synthetic, ColoursBlurAndNoiseStayInTheirRanges) {
  SyntheticOptions options = plain(Level::word);
  options.ink = 90;
  options.paper = 190;
  const SyntheticSource grey(english_corpus(), options);
  std::set<int> papers;
  for (std::uint64_t i = 0; i < 60; ++i) {
    const Image image = grey.draw(i, {});
    int low = 255, high = 0;
    for (const std::uint8_t value : image.pixels) {
      low = std::min<int>(low, value);
      high = std::max<int>(high, value);
    }
    EXPECT_LE(low, 150);  // thin strokes are lighter than their ink
    EXPECT_GE(high, 190);
    papers.insert(high);
    EXPECT_EQ(image.pixels[0], image.pixels[1]);
  }
  EXPECT_GT(papers.size(), 10u);
  options.colour_share = 1;
  const SyntheticSource tinted(english_corpus(), options);
  int coloured = 0;
  for (std::uint64_t i = 0; i < 20; ++i) {
    const Image image = tinted.draw(i, {});
    coloured += image.pixels[0] != image.pixels[1] || image.pixels[1] != image.pixels[2];
  }
  EXPECT_GT(coloured, 15);
}

TEST(Synthetic, PagesHaveTheirTextAndSize) {
  SyntheticOptions options = plain(Level::page);
  options.page_width = {300, 400};
  const SyntheticSource source(english_corpus(), options);
  for (std::uint64_t i = 0; i < 8; ++i) {
    const Image page = source.draw_page(i);
    EXPECT_EQ((std::array{page.width, page.height}), source.page_size(i));
    EXPECT_TRUE(page.width >= 300 && page.width <= 400);
    const auto box = ink_box(page);
    EXPECT_GT(box[0], 0);
    EXPECT_GT(box[1], 0);
    EXPECT_LT(box[2], page.width);
    EXPECT_LT(box[3], page.height);
    const std::string text = source.text(i), less = source.text(i, 5);
    EXPECT_GT(text.size(), 200u);
    EXPECT_NE(text.find("\n\n"), std::string::npos);
    EXPECT_LT(less.size(), text.size() / 2);
  }
  EXPECT_TRUE(throws_with([&] { source.draw(0, {}); }, {"every level but page"}));
  const SyntheticSource word(english_corpus(), plain(Level::word));
  EXPECT_TRUE(throws_with([&] { word.draw_page(0); }, {"needs level page, got word"}));
}

TEST(Synthetic, BadOptionsAndMissingFontsAreNamed) {
  const auto with = [](auto change, Level level = Level::word) {
    return [change, level] {
      SyntheticOptions options = plain(level);
      change(options);
      SyntheticSource(english_corpus(), options);
    };
  };
  using O = SyntheticOptions;
  EXPECT_TRUE(throws_with(with([](O& o) {
                            o.fonts = {"DejaVu Sans", "No Such Font"};
                          }),
                          {"fonts must be installed", "No Such Font"}));
  EXPECT_TRUE(
      throws_with(with([](O& o) { o.rotation_degrees = 3; }), {"rotation_degrees", "got 3"}));
  EXPECT_TRUE(throws_with(with([](O& o) {
                            o.font_size = {9, 8};
                          }),
                          {"font_size must be two numbers, the smaller first", "got 9 8"}));
  EXPECT_TRUE(throws_with(with([](O& o) { o.min_characters = 13; }), {"min_characters", "13"}));
  EXPECT_TRUE(throws_with(with([](O& o) { o.bold_share = 1.5; }), {"bold_share", "1.5"}));
  EXPECT_TRUE(throws_with(with([](O& o) { o.paper = 10; }),
                          {"paper must be an integer from 64 to 255, got 10"}));
  EXPECT_TRUE(throws_with(with([](O& o) { o.region_lines = 1; }), {"region_lines"}));
  // DejaVu has no Han.
  CorpusOptions han;
  han.scripts = {Script::cjk};
  SyntheticOptions options = plain(Level::word);
  options.fonts = {"DejaVu Sans"};
  EXPECT_TRUE(throws_with([&] { SyntheticSource(TextCorpus("漢字の文字", han), options); },
                          {"no usable font", "DejaVu Sans", "fonts-noto-cjk"}));
}

TEST(Synthetic, GreekAndCyrillicAreDrawnWithFacesThatHaveThem) {
  CorpusOptions wide;
  wide.scripts = {Script::latin, Script::greek, Script::cyrillic};
  const SyntheticSource source(
      TextCorpus("αβγ δέλτα λόγος и книга читает письмо word letter", wide), plain(Level::word));
  std::set<std::string> texts;
  for (std::uint64_t i = 0; i < 200; ++i) {
    texts.insert(source.text(i));
    EXPECT_NO_THROW(LineOutline(source.face(i), source.text(i)));
  }
  EXPECT_TRUE(texts.contains("λόγος"));
  EXPECT_TRUE(texts.contains("книга"));
  EXPECT_TRUE(texts.contains("letter"));
}

TEST(TextPainter, AMissingGlyphIsRefusedAndNamed) {
  const auto faces = faces_of("DejaVu Sans");
  ASSERT_FALSE(faces.empty());
  EXPECT_TRUE(throws_with([&] { LineOutline(faces[0], "a漢b"); }, {"DejaVu Sans", "\"漢\""}));
  EXPECT_TRUE(faces_of("No Such Font").empty());
  const LineOutline blank(faces[0], " ");
  EXPECT_EQ(blank.ink().right, blank.ink().left);
  EXPECT_GT(blank.advance(), 0.1);
  const LineOutline one(faces[0], "H"), two(faces[0], "HH");
  EXPECT_NEAR(two.advance(), 2 * one.advance(), 1e-3);
  const LineOutline many(faces[0], std::string(200, 'H'));  // none is lost far to the right
  EXPECT_NEAR(many.ink().right, many.advance() + one.ink().right - one.advance(), 0.01);
  EXPECT_LT(one.ink().top, -0.6);
  EXPECT_NEAR(one.ink().bottom, 0, 0.01);
}

TEST(ImageEffects, BlurKeepsTheMeanAndSpreadsAnEdge) {
  GreyPlane plane{41, 41, std::vector<std::uint8_t>(41 * 41, 200)};
  for (std::size_t y = 0; y < 41; ++y)
    for (std::size_t x = 0; x < 20; ++x) plane.values[y * 41 + x] = 100;
  GreyPlane upright = plane;
  for (std::size_t y = 0; y < 41; ++y)
    for (std::size_t x = 0; x < 41; ++x) upright.values[x * 41 + y] = plane.values[y * 41 + x];
  const GreyPlane sharp = plane;
  blur(plane, 0);
  EXPECT_EQ(plane.values, sharp.values);
  blur(plane, 2);
  blur(upright, 2);
  // A step blurred with a Gaussian is its distribution function.
  for (std::size_t x = 12; x < 28; ++x) {
    const double at = static_cast<double>(x) + 0.5 - 20;
    const double want = 150 + 50 * std::erf(at / 2 / std::sqrt(2.0));
    EXPECT_NEAR(plane.values[20 * 41 + x], want, 1.5) << x;
    EXPECT_NEAR(upright.values[x * 41 + 20], want, 1.5) << x;
  }
  EXPECT_EQ(plane.values[0], 100);
  EXPECT_EQ(plane.values[40], 200);
  EXPECT_TRUE(throws_with([&] { blur(plane, -1); }, {"sigma must be in 0 .. 16"}));
}

TEST(ImageEffects, NoiseHasItsDeviationAndIsItsSeeds) {
  Image grey = make_image(64, 64, 128), again = grey, other = grey;
  add_noise(grey, 10, 1, 7);
  add_noise(again, 10, 1, 7);
  add_noise(other, 10, 1, 8);
  EXPECT_EQ(grey.pixels, again.pixels);
  EXPECT_NE(grey.pixels, other.pixels);
  double sum = 0, squares = 0;
  for (std::size_t i = 0; i < grey.pixels.size(); i += 3) {
    EXPECT_EQ(grey.pixels[i], grey.pixels[i + 1]);
    sum += grey.pixels[i];
    squares += grey.pixels[i] * grey.pixels[i];
  }
  const double n = 64 * 64, mean = sum / n;
  EXPECT_NEAR(mean, 128, 1);  // standard error 0.16
  EXPECT_NEAR(std::sqrt(squares / n - mean * mean), 10, 0.7);
}

TEST(ImageEffects, JpegComesBackNearlyTheSame) {
  const SyntheticSource source(english_corpus(), plain(Level::word));
  const Image image = source.draw(0, {});
  const Image good = through_jpeg(image, 95), bad = through_jpeg(image, 10);
  ASSERT_EQ(good.width, image.width);
  const auto error = [&](const Image& other) {
    double sum = 0;
    for (std::size_t i = 0; i < image.pixels.size(); ++i)
      sum += std::abs(image.pixels[i] - other.pixels[i]);
    return sum / static_cast<double>(image.pixels.size());
  };
  EXPECT_LT(error(good), 2);
  EXPECT_GT(error(bad), error(good));
  EXPECT_TRUE(throws_with([&] { encode_jpeg(image, 0); }, {"quality must be 1 .. 100, got 0"}));
  EXPECT_TRUE(throws_with([&] { encode_jpeg(Image{}, 50); }, {"sides must be", "0 x 0"}));
}

TEST(ContactSheet, HasEveryPicture) {
  const SyntheticSource source(english_corpus(), plain(Level::word));
  std::vector<ContactEntry> entries;
  for (std::uint64_t i = 0; i < 5; ++i)
    entries.push_back({source.draw(i, {}), source.text(i), source.face(i)});
  const Image sheet = contact_sheet(entries, 3, 2);
  EXPECT_EQ(sheet.width, 3 * (128 + 6) + 6);
  EXPECT_EQ(sheet.row(6 + 10)[3 * (6 + 134 + 10)], entries[1].picture.row(5)[3 * 5]);
  EXPECT_TRUE(throws_with([&] { contact_sheet(entries, 0); }, {"columns and zoom"}));
}

}  // namespace
}  // namespace lectern
