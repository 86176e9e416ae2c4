// How well the lines that were found agree with a page's text layer.
#include "data/layout/page_segments.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <string_view>

namespace lectern {
namespace {

constexpr double kTooHigh = 2.2;    // a line as high as two words is not the line of either
constexpr double kNearEdge = 2.5;   // pixels: a box of the text layer has room around the ink
constexpr double kMostWords = 0.9;  // of a line; marks above and below may be lost

/// The page's point in pixels of the levelled page.
struct SegmentLevel {
  const PageSegments& segments;
  double y(double x, double y_of_page) const {
    return y_of_page - segments.slope * (x - 0.5 * static_cast<double>(segments.width));
  }
};

/// The line whose ink lies at a word, -1 for none.
std::int64_t line_at(const PageSegments& segments, const Box& word) {
  const SegmentLevel level{segments};
  const double x = 0.5 * (word.left + word.right);
  const double y = level.y(x, 0.5 * (word.top + word.bottom));
  for (std::size_t i = 0; i < segments.lines.size(); ++i) {
    const Box& box = segments.lines[i].box;
    if (x < box.left - kNearEdge || x > box.right + kNearEdge) continue;
    if (y >= box.top - 1 && y <= box.bottom + 1) return static_cast<std::int64_t>(i);
  }
  return -1;
}

/// x of the cuts between pieces, by line.
std::vector<std::vector<double>> cuts_of(const PageSegments& segments,
                                         const std::vector<PagePiece>& pieces) {
  std::vector<std::vector<double>> out(segments.lines.size());
  std::size_t line = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i].end == PieceEnd::line || pieces[i].end == PieceEnd::block)
      ++line;
    else
      out[line].push_back(0.5 * (pieces[i].box.right + pieces[i + 1].box.left));
  }
  return out;
}

}  // namespace

std::string perfect_reading(const PageSegments& segments, const Page& truth, std::int64_t width) {
  const std::vector<PagePiece> pieces = cut_pieces(segments, width);
  std::vector<std::size_t> first = {0};  // piece of each line
  for (std::size_t i = 0; i < pieces.size(); ++i)
    if (pieces[i].end == PieceEnd::line || pieces[i].end == PieceEnd::block) first.push_back(i + 1);
  std::vector<std::multimap<double, std::string_view>> words(pieces.size());  // by place
  for (const Line& line : truth.lines)
    for (const Word& word : line.words) {
      const std::int64_t at = line_at(segments, word.box);
      if (at < 0) continue;
      std::size_t piece = first[static_cast<std::size_t>(at)];
      const double x = 0.5 * (word.box.left + word.box.right);
      while (piece + 1 < first[static_cast<std::size_t>(at) + 1] && x > pieces[piece].box.right)
        ++piece;
      words[piece].emplace(x, word.text);
    }
  std::vector<std::string> texts;
  for (const auto& row : words) {
    std::string& text = texts.emplace_back();
    for (const auto& [x, word] : row) text.append(text.empty() ? "" : " ").append(word);
  }
  return join_pieces(pieces, texts);
}

SegmentScore score_segments(const PageSegments& segments, const Page& truth, std::int64_t width) {
  SegmentScore out;
  const std::vector<PagePiece> pieces = cut_pieces(segments, width);
  const auto cuts = cuts_of(segments, pieces);
  out.pieces = static_cast<std::int64_t>(pieces.size());
  std::vector<bool> used(segments.lines.size());
  std::int64_t before = -1;
  for (const Line& line : truth.lines) {
    ++out.lines;
    std::map<std::int64_t, std::int64_t> votes;
    for (const Word& word : line.words) ++votes[line_at(segments, word.box)];
    for (const auto& [at, count] : votes)
      if (at >= 0) used[static_cast<std::size_t>(at)] = true;
    const auto most =
        std::max_element(votes.begin(), votes.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    if (most == votes.end() || most->first < 0) continue;
    const auto at = static_cast<std::size_t>(most->first);
    const Box& box = segments.lines[at].box;
    double height = 0;
    for (const Word& word : line.words) height = std::max(height, word.box.bottom - word.box.top);
    if (static_cast<double>(most->second) < kMostWords * static_cast<double>(line.words.size()) ||
        box.bottom - box.top > kTooHigh * height)
      continue;
    ++out.found;
    if (most->first < before) ++out.out_of_order;
    before = most->first;
    for (const Word& word : line.words) {
      ++out.words;
      // A word that no piece could hold has to be cut.
      if (word.box.right - word.box.left > static_cast<double>(width)) continue;
      out.split += std::any_of(cuts[at].begin(), cuts[at].end(), [&](double cut) {
        return cut > word.box.left + kNearEdge && cut < word.box.right - kNearEdge;
      });
    }
  }
  out.extra = std::count(used.begin(), used.end(), false);
  return out;
}

}  // namespace lectern
