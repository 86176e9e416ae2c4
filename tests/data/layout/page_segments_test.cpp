// Lines, words and reading order found by ink alone, against pages whose lines are known.
#include "data/layout/page_segments.h"

#include "core/error.h"
#include "data/images/piece_view.h"
#include "tests/data/drawn_sheet.h"
#include "tests/data/text_sample.h"
#include "tests/testing.h"

namespace lectern {
namespace {

using testing::DrawnSheet;
using testing::throws_with;

constexpr std::int64_t kWidth = 112;
constexpr double kEm = 14;

std::vector<std::string> english_words() {
  std::istringstream in(testing::kEnglish);
  std::vector<std::string> out;
  for (std::string word; in >> word;)
    // This font's J reaches under the word before it.
    if (word != "--" && word != "&" && word != "Jane") out.push_back(word);
  return out;
}

/// Two paragraphs in one column.
DrawnSheet one_column(double degrees = 0, const std::string& family = "DejaVu Serif") {
  DrawnSheet sheet(640, 800, degrees, family);
  const auto words = english_words();
  std::size_t next = 0;
  const double last = sheet.paragraph(words, next, {60, 60, 580, 170}, kEm, 1.25, 0);
  sheet.paragraph(words, next, {60, last + 2 * kEm, 580, 700}, kEm, 1.25, 1);
  return sheet;
}

/// A title above two columns whose lines do not stand side by side.
DrawnSheet two_columns(double degrees = 0) {
  DrawnSheet sheet(700, 800, degrees);
  sheet.line("A title across both of the columns", 150, 80, 22, 0);
  const auto words = english_words();
  std::size_t next = 0;
  sheet.paragraph(words, next, {60, 120, 330, 300}, kEm, 1.25, 1);
  next = 0;
  sheet.paragraph(words, next, {365, 127, 635, 700}, kEm, 1.3, 2);
  return sheet;
}

/// Everything that is true is found, in order and whole, and nothing else.
void expect_all(const Page& truth, const PageSegments& found) {
  const SegmentScore score = score_segments(found, truth, kWidth);
  EXPECT_EQ(score.lines, static_cast<std::int64_t>(truth.lines.size()));
  EXPECT_EQ(score.found, score.lines);
  EXPECT_EQ(score.out_of_order, 0);
  EXPECT_EQ(score.split, 0);
  EXPECT_EQ(score.extra, 0);
  EXPECT_EQ(found.lines.size(), truth.lines.size());
}

/// A reader without mistakes would give the page's text.
void expect_readable(const Page& truth, const PageSegments& found) {
  EXPECT_EQ(perfect_reading(found, truth, kWidth), text_of_lines(truth.lines));
}

/// Words begin and end where true ones do. Two may be one where letters reach into the space.
void expect_same_words(const Page& truth, const PageSegments& found) {
  ASSERT_EQ(found.lines.size(), truth.lines.size());
  std::size_t words = 0, true_words = 0;
  for (std::size_t i = 0; i < truth.lines.size(); ++i) {
    const Line& line = truth.lines[i];
    EXPECT_EQ(found.lines[i].block, line.block) << line.text;
    true_words += line.words.size();
    words += found.lines[i].words.size();
    for (const InkWord& word : found.lines[i].words) {
      const auto is_near = [&](double Box::*side) {
        return std::any_of(line.words.begin(), line.words.end(), [&](const Word& other) {
          return std::abs(word.box.*side - other.box.*side) <= 2;
        });
      };
      EXPECT_TRUE(is_near(&Box::left)) << line.text << ": " << word.box.left;
      EXPECT_TRUE(is_near(&Box::right)) << line.text << ": " << word.box.right;
    }
  }
  EXPECT_LE(words, true_words);
  EXPECT_GE(static_cast<double>(words), 0.97 * static_cast<double>(true_words));
}

TEST(PageSegments, OneColumn) {
  const DrawnSheet sheet = one_column();
  ASSERT_GT(sheet.page.lines.size(), 8u);
  const PageSegments found = find_text(sheet.image());
  EXPECT_EQ(found.width, 640);
  EXPECT_EQ(found.slope, 0);
  expect_all(sheet.page, found);
  expect_same_words(sheet.page, found);
  expect_readable(sheet.page, found);
}

TEST(PageSegments, FixedWidthLetters) {
  const DrawnSheet sheet = one_column(0, "DejaVu Sans Mono");
  const PageSegments found = find_text(sheet.image());
  expect_all(sheet.page, found);
}

TEST(PageSegments, TwoColumnsAreReadOneAfterTheOther) {
  const DrawnSheet sheet = two_columns();
  const PageSegments found = find_text(sheet.image());
  expect_all(sheet.page, found);
  expect_same_words(sheet.page, found);
  expect_readable(sheet.page, found);
}

TEST(PageSegments, TablesAreReadRowByRow) {
  DrawnSheet sheet(640, 500);
  std::int64_t row = 0;
  for (const char* text : {"name", "width", "height", "weight", "colour", "age", "price"}) {
    const double y = 100 + 20.0 * static_cast<double>(row++);
    sheet.line(std::string(text) + " 12.5", 60, y, kEm, 0);
    sheet.line("7 of 9", 420, y, kEm, 0);
  }
  const PageSegments found = find_text(sheet.image());
  ASSERT_EQ(found.lines.size(), 7u);
  // The pieces end at the wide gap.
  const auto pieces = cut_pieces(found, kWidth);
  ASSERT_EQ(pieces.size(), 14u);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    EXPECT_EQ(pieces[i].box.left < 300, i % 2 == 0);
    EXPECT_EQ(pieces[i].end, i == 13      ? PieceEnd::block
                             : i % 2 == 0 ? PieceEnd::word
                                          : PieceEnd::line);
  }
}

TEST(PageSegments, TurnedPages) {
  for (const double degrees : {-1.0, 1.0}) {
    SCOPED_TRACE(degrees);
    for (const DrawnSheet& sheet : {one_column(degrees), two_columns(degrees)}) {
      const PageSegments found = find_text(sheet.image());
      EXPECT_NEAR(found.slope, std::tan(degrees * std::numbers::pi / 180), 0.003);
      expect_all(sheet.page, found);
      expect_readable(sheet.page, found);
      // Level now: on the levelled page the same lines are found with no slope.
      const PageSegments again = find_text(level_page(sheet.image(), found.slope));
      EXPECT_NEAR(again.slope, 0, 0.003);
      EXPECT_EQ(again.lines.size(), found.lines.size());
    }
  }
}

TEST(PageSegments, NoiseRulesAndPicturesAreNoText) {
  DrawnSheet sheet = one_column();
  sheet.rectangle({60, 620, 580, 622});   // a rule
  sheet.rectangle({60, 640, 62, 760});    // and one that stands
  sheet.rectangle({200, 640, 420, 760});  // a picture
  Image page = sheet.image();
  add_noise(page, 12, 5, 0);
  for (std::int64_t i = 0; i < 400; ++i) {  // specks, most of them far from any letter
    const std::int64_t x = i * 7919 % 640, y = i * 104729 % 800;
    for (int c = 0; c < 3; ++c) page.row(y)[3 * x + c] = 40;
  }
  expect_all(sheet.page, find_text(page));
}

TEST(PageSegments, GreyPaperInAShadowAndColouredInk) {
  const DrawnSheet sheet = one_column();
  Image page = sheet.image({20, 40, 160}, {225, 215, 190});
  for (std::int64_t y = 0; y < page.height; ++y)
    for (std::int64_t x = 0; x < page.width; ++x)
      for (int c = 0; c < 3; ++c)
        page.row(y)[3 * x + c] =
            static_cast<std::uint8_t>(page.row(y)[3 * x + c] * (1000 - x / 3) / 1000);
  const PageSegments found = find_text(page);
  expect_all(sheet.page, found);
  const Image level = level_page(page, found.slope);
  EXPECT_GT(level.row(790)[3 * 5 + 2], 240);  // paper
  EXPECT_GT(level.row(790)[3 * 630 + 2], 240);
}

TEST(PageSegments, PagesWithoutText) {
  EXPECT_TRUE(find_text(Image{}).lines.empty());
  for (const std::int64_t side : {1, 2, 31, 33, 300}) {
    EXPECT_TRUE(find_text(make_image(side, side)).lines.empty()) << side;
    EXPECT_TRUE(find_text(make_image(side, side, 0)).lines.empty()) << side;
    EXPECT_TRUE(find_text(make_image(side, side, 128)).lines.empty()) << side;
  }
  EXPECT_TRUE(find_text(make_image(3000, 1)).lines.empty());
  EXPECT_TRUE(cut_pieces(find_text(make_image(100, 100)), 50).empty());
  Image half = make_image(300, 300);
  for (std::int64_t y = 0; y < 150; ++y) std::fill(half.row(y), half.row(y) + 900, 0);
  EXPECT_TRUE(find_text(half).lines.empty());
  const Image white = make_image(40, 30);
  EXPECT_EQ(level_page(white, 0).pixels, white.pixels);
  EXPECT_TRUE(level_page(Image{}, 0).empty());
}

TEST(PageSegments, OneWordAlone) {
  DrawnSheet sheet(200, 60);
  sheet.line("Word", 20, 40, 20, 0);
  const PageSegments found = find_text(sheet.image());
  expect_all(sheet.page, found);
  ASSERT_EQ(cut_pieces(found, kWidth).size(), 1u);
}

/// Lines of words of given widths with gaps of 5, 10 high, one below the other.
PageSegments made_of(const std::vector<std::vector<double>>& lines) {
  PageSegments out;
  double top = 0;
  for (const auto& widths : lines) {
    InkText line;
    double x = 0;
    for (const double width : widths) {
      InkWord word{{x, top, x + width, top + 10}, {}};
      for (double at = x + 8; at < x + width - 1; at += 8) word.breaks.push_back(at);
      line.words.push_back(word);
      x += width + 5;
    }
    line.box = {0, top, x - 5, top + 10};
    line.block = static_cast<std::int64_t>(out.lines.size()) / 2;
    out.lines.push_back(line);
    top += 15;
  }
  return out;
}

TEST(PagePieces, FillTheWidthAndEndWhereLinesEnd) {
  const PageSegments segments = made_of({{40, 30, 50}, {90}, {20, 20, 20}, {110, 10}});
  const auto pieces = cut_pieces(segments, 80);
  std::vector<std::pair<double, double>> spans;
  std::vector<PieceEnd> ends;
  for (const PagePiece& piece : pieces) {
    spans.emplace_back(piece.box.left, piece.box.right);
    ends.push_back(piece.end);
    EXPECT_EQ(piece.box.bottom - piece.box.top, 10);
  }
  // 90 is wider than 80 but not by a quarter; 110 is cut between letters.
  const std::vector<std::pair<double, double>> wanted = {{0, 75}, {80, 130}, {0, 90},   {0, 70},
                                                         {0, 80}, {80, 110}, {115, 125}};
  EXPECT_EQ(spans, wanted);
  EXPECT_EQ(ends,
            (std::vector<PieceEnd>{PieceEnd::word, PieceEnd::line, PieceEnd::block, PieceEnd::line,
                                   PieceEnd::inside_word, PieceEnd::word, PieceEnd::block}));
  EXPECT_EQ(join_pieces(pieces, {"a b", "c", "d", "e f g", "hij", "k", "l"}),
            "a b c\nd\n\ne f g\nhijk l");
  // Empty texts leave no double spaces, and line ends inside a text are spaces.
  EXPECT_EQ(join_pieces(pieces, {" a\nb ", "", "", "e", "", "", "l\n"}), "a b\n\ne\nl");
  EXPECT_EQ(join_pieces(pieces, std::vector<std::string>(7)), "");
  EXPECT_EQ(join_pieces({}, {}), "");
  EXPECT_TRUE(throws_with([&] { join_pieces(pieces, {"a"}); }, {"one a piece, 7, got 1"}));
  EXPECT_TRUE(throws_with([&] { cut_pieces(segments, 0); }, {"width must be >= 1, got 0"}));
  // Every break of a word is used where even a letter does not fit.
  EXPECT_EQ(cut_pieces(made_of({{24}}), 1).size(), 3u);
}

TEST(PieceView, PlacesScalesAndRefuses) {
  const Image black = make_image(20, 10, 0);
  PieceView view{.size = 64, .margin = 6};
  const Image middle = lay_piece(black, 8, view);
  EXPECT_EQ(middle.row(27)[3 * 6], 0);
  EXPECT_EQ(middle.row(26)[3 * 6], 255);
  EXPECT_EQ(middle.row(36)[3 * 25], 0);
  EXPECT_EQ(middle.row(36)[3 * 26], 255);
  view.at_top = true;
  EXPECT_EQ(lay_piece(black, 8, view).row(6)[3 * 6], 0);
  view.text_height = 16;  // twice as large
  EXPECT_EQ(lay_piece(black, 8, view).row(6 + 19)[3 * (6 + 39)], 0);
  EXPECT_EQ(lay_piece(black, 8, view).row(6 + 20)[3 * 6], 255);
  // Larger than the room of 52 pixels: smaller.
  EXPECT_EQ(lay_piece(make_image(104, 10, 0), 8, {.size = 64, .margin = 6}).row(32)[3 * 58], 255);
  EXPECT_TRUE(throws_with([&] { lay_piece(Image{}, 8, view); }, {"must have pixels, got 0 x 0"}));
}

}  // namespace
}  // namespace lectern
