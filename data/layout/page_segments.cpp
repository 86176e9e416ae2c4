#include "data/layout/page_segments.h"

#include "core/error.h"
#include "core/statistics.h"
#include "data/layout/page_ink.h"
#include "data/layout/page_layout.h"

#include <algorithm>
#include <cmath>

namespace lectern {
namespace {

using detail::Component;
using detail::InkLine;

// Lengths are in heights of a capital.
constexpr double kLeastSpace = 0.28, kMostSpace = 0.55;  // between the gaps of letters and of words
constexpr double kUsualSpace = 0.4;
constexpr double kWidestGap = 0.85;    // wider ones say nothing about the space between words
constexpr double kFoot = 0.28;         // of letters like g below the line
constexpr double kPart = 2.5;          // gap of a line that no piece spans
constexpr std::size_t kFewGaps = 8;    // too few to tell spaces from
constexpr double kLongWord = 1.25;     // times the width of a piece
constexpr double kMonoSpaced = 0.14;   // mean distance from a grid of letters, in cells
constexpr std::size_t kFewCells = 16;  // too few to tell a grid from

/// Ink of a line without white columns in it: a letter, or some that touch.
struct Glyph {
  double left, right;
  double middle() const { return 0.5 * (left + right); }
};

std::vector<Glyph> glyphs_of(const InkLine& line) {
  std::vector<Glyph> out;
  for (const Component& part : line.parts) {
    if (!out.empty() && part.left < out.back().right)
      out.back().right = std::max(out.back().right, static_cast<double>(part.right));
    else
      out.push_back({static_cast<double>(part.left), static_cast<double>(part.right)});
  }
  return out;
}

/// Where words end in lines that are set alike.
struct Spacing {
  double gap = 0;    // white between letters that is at least so wide is a space
  double pitch = 0;  // of a fixed-width font: cells from middle to middle; else 0

  bool parts(const Glyph& a, const Glyph& b) const {
    if (pitch > 0 && a.right - a.left < 1.2 * pitch && b.right - b.left < 1.2 * pitch)
      return b.middle() - a.middle() > 1.6 * pitch;
    return b.left - a.right >= gap;
  }
};

/// Width of a letter's cell when all letters stand on a grid, else 0.
double pitch_of(const std::vector<std::vector<Glyph>>& lines, double capital) {
  std::vector<double> steps;
  for (const auto& glyphs : lines)
    for (std::size_t i = 1; i < glyphs.size(); ++i) {
      const double step = glyphs[i].middle() - glyphs[i - 1].middle();
      if (step < 3 * capital) steps.push_back(step);
    }
  if (steps.size() < kFewCells) return 0;
  double best = kMonoSpaced, pitch = 0;
  for (double cell = 0.55 * capital; cell < 1.2 * capital; cell += 0.02 * capital) {
    double off = 0;
    for (const double step : steps)
      off += std::abs(step / cell - std::max(1.0, std::round(step / cell)));
    off /= static_cast<double>(steps.size());
    if (off < best) {
      best = off;
      pitch = cell;
    }
  }
  return pitch;
}

/// The threshold between two kinds of gaps that lie farthest apart (Otsu 1979).
double space_of(const std::vector<std::vector<Glyph>>& lines, double capital) {
  std::vector<double> gaps;
  for (const auto& glyphs : lines)
    for (std::size_t i = 1; i < glyphs.size(); ++i)
      if (const double gap = glyphs[i].left - glyphs[i - 1].right; gap <= kWidestGap * capital)
        gaps.push_back(gap);
  if (gaps.size() < kFewGaps) return kUsualSpace * capital;
  double best = 0, threshold = kUsualSpace * capital;
  const double last = std::max(std::ceil(kLeastSpace * capital), kMostSpace * capital);
  for (double limit = std::ceil(kLeastSpace * capital); limit <= last; ++limit) {
    double low = 0, high = 0, low_sum = 0, high_sum = 0;
    for (const double gap : gaps) {
      (gap < limit ? low : high) += 1;
      (gap < limit ? low_sum : high_sum) += gap;
    }
    if (low == 0 || high == 0) continue;
    const double apart = high_sum / high - low_sum / low;
    if (low * high * apart * apart <= best) continue;
    best = low * high * apart * apart;
    threshold = limit;
  }
  return threshold;
}

/// The row that most letters of a line stand on.
double baseline_of(const InkLine& line) {
  std::int64_t most = 0;
  double best = 0;
  for (const Component& part : line.parts) {
    const auto standing = std::count_if(
        line.parts.begin(), line.parts.end(),
        [&](const Component& other) { return std::abs(other.bottom - part.bottom) <= 1; });
    if (standing <= most) continue;
    most = standing;
    best = part.bottom;
  }
  return best;
}

/// `capital` is that of the line's block, `height` that of the page.
InkText words_of(const InkLine& line, const std::vector<Glyph>& glyphs, const Spacing& spacing,
                 double capital, std::int64_t height) {
  const Component ink = line.box();
  const double baseline = baseline_of(line);
  InkText out;
  out.box = {static_cast<double>(ink.left),
             std::max(0.0, std::min<double>(ink.top, baseline - capital)),
             static_cast<double>(ink.right),
             std::min(static_cast<double>(height),
                      std::max<double>(ink.bottom, std::round(baseline + kFoot * capital)))};
  for (std::size_t i = 0; i < glyphs.size(); ++i) {
    if (i == 0 || spacing.parts(glyphs[i - 1], glyphs[i]))
      out.words.push_back({{glyphs[i].left, out.box.top, glyphs[i].right, out.box.bottom}, {}});
    else
      out.words.back().breaks.push_back(0.5 * (glyphs[i - 1].right + glyphs[i].left));
    out.words.back().box.right = glyphs[i].right;
  }
  return out;
}

/// Whether two lines are set in letters of one size. A line may lack capitals, or small letters.
bool is_set_alike(const InkLine& a, const InkLine& b, double capital) {
  for (const double share : {0.5, 0.8}) {
    const double one = detail::local_capital(a.parts, capital, share);
    const double other = detail::local_capital(b.parts, capital, share);
    if (one < 1.35 * other && other < 1.35 * one) return true;
  }
  return false;
}

/// Lines of a column that belong together: set alike, at equal distances.
std::vector<std::size_t> block_starts(const std::vector<InkLine>& lines, std::size_t first,
                                      std::size_t last, double capital) {
  std::vector<double> steps;
  const auto middle = [&](std::size_t i) {
    const Component box = lines[i].box();
    return 0.5 * (box.top + box.bottom);
  };
  for (std::size_t i = first + 1; i < last; ++i)
    if (const double step = middle(i) - middle(i - 1); step < 4 * capital) steps.push_back(step);
  double usual = 2 * capital;
  if (!steps.empty()) usual = std::max(quantile(std::move(steps), 0.5), 1.4 * capital);
  std::vector<std::size_t> out = {first};
  for (std::size_t i = first + 1; i < last; ++i) {
    if (middle(i) - middle(i - 1) > 1.3 * usual || !is_set_alike(lines[i - 1], lines[i], capital))
      out.push_back(i);
  }
  return out;
}

/// Makes words of the lines first .. last - 1, which are set alike.
void add_block(const std::vector<InkLine>& lines, std::size_t first, std::size_t last,
               double capital, PageSegments& out) {
  std::vector<Component> parts;
  std::vector<std::vector<Glyph>> glyphs;
  for (std::size_t i = first; i < last; ++i) {
    parts.insert(parts.end(), lines[i].parts.begin(), lines[i].parts.end());
    glyphs.push_back(glyphs_of(lines[i]));
  }
  const double local = detail::local_capital(parts, capital);
  const Spacing spacing{space_of(glyphs, local), pitch_of(glyphs, local)};
  const std::int64_t block = out.lines.empty() ? 0 : out.lines.back().block + 1;
  for (std::size_t i = first; i < last; ++i) {
    out.lines.push_back(words_of(lines[i], glyphs[i - first], spacing, local, out.height));
    out.lines.back().block = block;
  }
}

void add_blocks(const std::vector<InkLine>& lines, double capital, PageSegments& out) {
  for (std::size_t first = 0; first < lines.size();) {
    std::size_t last = first;
    while (last < lines.size() && lines[last].column == lines[first].column) ++last;
    std::vector<std::size_t> starts = block_starts(lines, first, last, capital);
    starts.push_back(last);
    for (std::size_t i = 0; i + 1 < starts.size(); ++i)
      add_block(lines, starts[i], starts[i + 1], capital, out);
    first = last;
  }
}

/// Cuts a word that is too long for a piece between letters.
void cut_word(const InkWord& word, double width, std::vector<PagePiece>& out) {
  double left = word.box.left;
  for (std::size_t i = 0; i < word.breaks.size() && word.box.right - left > width; ++i) {
    const bool fits_next = i + 1 < word.breaks.size() ? word.breaks[i + 1] - left <= width : false;
    if (fits_next || word.breaks[i] <= left) continue;
    out.push_back({{left, word.box.top, word.breaks[i], word.box.bottom}, PieceEnd::inside_word});
    left = word.breaks[i];
  }
  out.push_back({{left, word.box.top, word.box.right, word.box.bottom}, PieceEnd::word});
}

void cut_line(const InkText& line, double width, double part_gap, std::vector<PagePiece>& out) {
  for (std::size_t first = 0; first < line.words.size();) {
    const Box& start = line.words[first].box;
    if (start.right - start.left > kLongWord * width) {
      cut_word(line.words[first++], width, out);
      continue;
    }
    std::size_t next = first + 1;
    while (next < line.words.size() && line.words[next].box.right - start.left <= width &&
           line.words[next].box.left - line.words[next - 1].box.right <= part_gap)
      ++next;
    out.push_back({{start.left, line.box.top, line.words[next - 1].box.right, line.box.bottom},
                   PieceEnd::word});
    first = next;
  }
}

std::string trimmed(std::string_view text) {
  constexpr std::string_view kWhite = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kWhite);
  if (first == text.npos) return "";
  std::string out(text.substr(first, text.find_last_not_of(kWhite) - first + 1));
  std::replace(out.begin(), out.end(), '\n', ' ');
  return out;
}

}  // namespace

PageSegments find_text(const Image& page) {
  PageSegments out;
  out.width = page.width;
  out.height = page.height;
  detail::InkPlane ink = detail::find_ink(page, detail::paper_of(page));
  std::vector<Component> parts = detail::components_of(ink);
  // A letter of a tenth of the page is a picture, but a small picture may hold one word.
  const double highest = std::max(32.0, 0.1 * static_cast<double>(page.height));
  double capital = detail::capital_height(parts, highest);
  if (capital == 0) return out;
  parts = detail::text_parts(parts, capital);
  out.slope = detail::slope_of(parts, capital, page.width);
  if (out.slope != 0) {
    ink = detail::level_ink(ink, out.slope);
    parts = detail::components_of(ink);
    capital = detail::capital_height(parts, highest);
    parts = detail::text_parts(parts, capital);
  }
  if (!parts.empty()) add_blocks(detail::find_lines(parts, capital), capital, out);
  return out;
}

Image level_page(const Image& page, double slope) {
  constexpr std::uint8_t kWhite = 250;
  Image out = make_image(page.width, page.height);
  const detail::PaperLevels paper = detail::paper_of(page);
  const bool is_white =
      paper.columns == 0 || std::all_of(paper.levels.begin(), paper.levels.end(),
                                        [](std::uint8_t level) { return level >= kWhite; });
  if (slope == 0 && is_white) return page;
  for (std::int64_t x = 0; x < page.width; ++x) {
    const std::int64_t up = detail::rise(slope, x, page.width);
    const std::int64_t first = std::max<std::int64_t>(0, -up);
    for (std::int64_t y = first; y < std::min(page.height, page.height - up); ++y) {
      const std::uint8_t* from = page.row(y + up) + 3 * x;
      const int level = is_white ? 255 : paper.at(x, y + up);
      for (int c = 0; c < 3; ++c)
        out.row(y)[3 * x + c] =
            level >= kWhite ? from[c]
                            : static_cast<std::uint8_t>(std::min(255, from[c] * 255 / level));
    }
  }
  return out;
}

std::vector<PagePiece> cut_pieces(const PageSegments& segments, std::int64_t width) {
  if (width < 1) fail<ConfigError>(fmt::format("cut_pieces: width must be >= 1, got {}", width));
  std::vector<PagePiece> out;
  for (std::size_t i = 0; i < segments.lines.size(); ++i) {
    const InkText& line = segments.lines[i];
    cut_line(line, static_cast<double>(width), kPart * 0.75 * (line.box.bottom - line.box.top),
             out);
    const bool ends_block =
        i + 1 == segments.lines.size() || segments.lines[i + 1].block != line.block;
    out.back().end = ends_block ? PieceEnd::block : PieceEnd::line;
  }
  return out;
}

std::string join_pieces(const std::vector<PagePiece>& pieces,
                        const std::vector<std::string>& texts) {
  if (pieces.size() != texts.size())
    fail<ShapeError>(fmt::format("join_pieces: texts must be one a piece, {}, got {}",
                                 pieces.size(), texts.size()));
  std::string out;
  PieceEnd last = PieceEnd::inside_word;  // the strongest end since the last text
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const std::string text = trimmed(texts[i]);
    if (!text.empty()) {
      if (!out.empty())
        out += last == PieceEnd::block  ? "\n\n"
               : last == PieceEnd::line ? "\n"
               : last == PieceEnd::word ? " "
                                        : "";
      out += text;
      last = pieces[i].end;
    } else {
      last = std::max(last, pieces[i].end);
    }
  }
  return out;
}

}  // namespace lectern
