#include "data/layout/page_layout.h"

#include "core/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

namespace lectern::detail {
namespace {

// Lengths are in heights of a capital, about 0.7 of the font's size.
constexpr double kGutter = 1.2;          // least white between two columns
constexpr double kNarrowestColumn = 12;  // some fifteen letters
constexpr double kShortestColumn = 6;    // some three lines
constexpr double kFilled = 0.55;         // share of its column that a line of running text fills
constexpr double kTall = 2.2;            // one line is not so high
constexpr double kLetter = 0.45;         // anything less high is a dot, a dash or an accent
constexpr double kDotGap = 0.6;          // white between a letter and what belongs to it
constexpr int kDeepest = 24;

using Parts = std::vector<Component>;

Component join(const Component& a, const Component& b) {
  return {std::min(a.left, b.left), std::min(a.top, b.top), std::max(a.right, b.right),
          std::max(a.bottom, b.bottom), a.area + b.area};
}

Component box_of(const Parts& parts) {
  return std::accumulate(parts.begin() + 1, parts.end(), parts.front(), join);
}

/// Parts that share rows of pixels, and no row with any other strip.
std::vector<Parts> strips_of(Parts parts) {
  std::stable_sort(parts.begin(), parts.end(),
                   [](const Component& a, const Component& b) { return a.top < b.top; });
  std::vector<Parts> out;
  std::int32_t bottom = 0;
  for (Component& part : parts) {
    if (out.empty() || part.top >= bottom) out.emplace_back();
    bottom = out.back().empty() ? part.bottom : std::max(bottom, part.bottom);
    out.back().push_back(part);
  }
  return out;
}

/// Columns of pixels [first, second).
using Interval = std::pair<std::int32_t, std::int32_t>;

/// White between and around the parts, at least `narrowest` wide.
std::vector<Interval> white_of(const Parts& parts, double narrowest) {
  constexpr std::int32_t kFar = 1 << 30;
  std::vector<Interval> inked;
  for (const Component& part : parts) inked.emplace_back(part.left, part.right);
  std::sort(inked.begin(), inked.end());
  std::vector<Interval> out;
  std::int32_t end = -kFar;
  for (const auto& [left, right] : inked) {
    if (left - end >= narrowest) out.emplace_back(end, left);
    end = std::max(end, right);
  }
  out.emplace_back(end, kFar);
  return out;
}

std::vector<Interval> common_white(const std::vector<Interval>& a, const std::vector<Interval>& b,
                                   double narrowest) {
  std::vector<Interval> out;
  for (std::size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const std::int32_t left = std::max(a[i].first, b[j].first);
    const std::int32_t right = std::min(a[i].second, b[j].second);
    if (right - left >= narrowest) out.emplace_back(left, right);
    if (a[i].second < b[j].second)
      ++i;
    else
      ++j;
  }
  return out;
}

/// Strips first .. last - 1 stand in two columns with this gutter between them.
struct Columns {
  std::size_t first = 0, last = 0;
  Interval gutter;
};

class Layout {
 public:
  explicit Layout(double capital) : capital_(capital) {}

  std::vector<InkLine> lines(Parts parts) {
    if (!parts.empty()) arrange(strips_of(std::move(parts)), 0);
    return std::move(lines_);
  }

 private:
  void arrange(std::vector<Parts> strips, int depth) {
    const auto columns = depth < kDeepest ? find_columns(strips) : std::nullopt;
    if (!columns) {
      add_lines(strips);
      return;
    }
    const auto first = strips.begin() + static_cast<std::ptrdiff_t>(columns->first);
    const auto last = strips.begin() + static_cast<std::ptrdiff_t>(columns->last);
    if (first != strips.begin()) arrange({strips.begin(), first}, depth + 1);
    auto [left, right] = sides({first, last}, columns->gutter);
    arrange(strips_of(std::move(left)), depth + 1);
    arrange(strips_of(std::move(right)), depth + 1);
    if (last != strips.end()) arrange({last, strips.end()}, depth + 1);
  }

  static std::pair<Parts, Parts> sides(const std::vector<Parts>& strips, Interval gutter) {
    std::pair<Parts, Parts> out;
    for (const Parts& strip : strips)
      for (const Component& part : strip)
        (part.right <= gutter.first ? out.first : out.second).push_back(part);
    return out;
  }

  /// The tallest stretch of strips that stands in two columns.
  std::optional<Columns> find_columns(const std::vector<Parts>& strips) const {
    std::vector<std::vector<Interval>> white;
    std::vector<Component> boxes;
    for (const Parts& strip : strips) {
      white.push_back(white_of(strip, kGutter * capital_));
      boxes.push_back(box_of(strip));
    }
    std::optional<Columns> best;
    std::int32_t tallest = static_cast<std::int32_t>(kShortestColumn * capital_);
    for (std::size_t first = 0; first < strips.size(); ++first) {
      if (boxes.back().bottom - boxes[first].top <= tallest) break;
      const auto found = columns_from(first, white, boxes);
      if (!found) continue;
      const std::int32_t height = boxes[found->last - 1].bottom - boxes[first].top;
      if (height <= tallest || !are_columns(strips, *found)) continue;
      tallest = height;
      best = found;
    }
    return best;
  }

  /// As many strips from `first` on as leave a gutter free.
  std::optional<Columns> columns_from(std::size_t first,
                                      const std::vector<std::vector<Interval>>& white,
                                      const std::vector<Component>& boxes) const {
    std::optional<Columns> out;
    std::vector<Interval> free = white[first];
    Component box = boxes[first];
    for (std::size_t last = first; last < white.size(); ++last) {
      if (last > first) free = common_white(free, white[last], kGutter * capital_);
      box = join(box, boxes[last]);
      std::int32_t widest = 0;
      for (const Interval& gutter : free) {
        const bool inside = gutter.first >= box.left + kNarrowestColumn * capital_ &&
                            gutter.second <= box.right - kNarrowestColumn * capital_;
        if (!inside || gutter.second - gutter.first <= widest) continue;
        widest = gutter.second - gutter.first;
        out = Columns{first, last + 1, gutter};
      }
    }
    return out;
  }

  bool are_columns(const std::vector<Parts>& strips, const Columns& found) const {
    const auto [left, right] = sides({strips.begin() + static_cast<std::ptrdiff_t>(found.first),
                                      strips.begin() + static_cast<std::ptrdiff_t>(found.last)},
                                     found.gutter);
    return is_running_text(left) && is_running_text(right);
  }

  /// Lines that mostly fill their width: not the cells of a table.
  bool is_running_text(const Parts& parts) const {
    if (parts.empty()) return false;
    const Component box = box_of(parts);
    if (box.height() < kShortestColumn * capital_ || box.width() < kNarrowestColumn * capital_)
      return false;
    double filled = 0, rows = 0;
    for (const Parts& strip : strips_of(parts)) {
      const Component line = box_of(strip);
      filled += static_cast<double>(line.height()) * line.width();
      rows += line.height();
    }
    return filled > kFilled * rows * box.width();
  }

  void add_lines(const std::vector<Parts>& strips) {
    std::vector<Parts> lines;
    for (const Parts& strip : strips)
      for (Parts& line : split(strip)) lines.push_back(std::move(line));
    for (Parts& line : with_dots(std::move(lines))) {
      std::stable_sort(line.begin(), line.end(),
                       [](const Component& a, const Component& b) { return a.left < b.left; });
      lines_.push_back({std::move(line), column_});
    }
    ++column_;
  }

  /// Lines of a strip whose rows overlap, told apart by the feet of their letters.
  std::vector<Parts> split(const Parts& strip) const {
    const Component box = box_of(strip);
    const double capital = local_capital(strip, capital_);
    if (box.height() <= kTall * capital) return {strip};
    const std::vector<std::int32_t> feet = baselines(strip, box, capital);
    if (feet.size() < 2) return {strip};
    std::vector<Parts> out(feet.size());
    for (const Component& part : strip) {
      const double middle = 0.5 * (part.top + part.bottom);
      std::size_t line = 0;
      // What hangs below a line ends a good third of the way to the next.
      while (line + 1 < feet.size() && middle > feet[line] + 0.38 * (feet[line + 1] - feet[line]))
        ++line;
      out[line].push_back(part);
    }
    std::erase_if(out, [](const Parts& line) { return line.empty(); });
    return out;
  }

  /// Rows on which many letters stand, more than a capital apart, ascending.
  static std::vector<std::int32_t> baselines(const Parts& strip, const Component& box,
                                             double capital) {
    std::vector<std::int32_t> feet(static_cast<std::size_t>(box.height() + 3));
    for (const Component& part : strip)
      if (part.height() >= kLetter * capital && part.height() <= kTall * capital)
        feet[static_cast<std::size_t>(part.bottom - box.top + 1)] += 1;
    std::vector<std::pair<std::int32_t, std::int32_t>> rows;  // - letters, row
    for (std::size_t row = 1; row + 1 < feet.size(); ++row)
      if (const std::int32_t sum = feet[row - 1] + 2 * feet[row] + feet[row + 1]; sum >= 2)
        rows.emplace_back(-sum, static_cast<std::int32_t>(row) - 1 + box.top);
    std::sort(rows.begin(), rows.end());
    std::vector<std::int32_t> out;
    for (const auto& [letters, row] : rows) {
      if (-letters < 0.03 * -rows.front().first) break;
      const auto is_beside = [&, row = row](std::int32_t other) {  // clang 14 cannot capture `row`
        return std::abs(other - row) < 1.1 * capital;
      };
      if (std::none_of(out.begin(), out.end(), is_beside)) out.push_back(row);
    }
    std::sort(out.begin(), out.end());
    return out;
  }

  bool has_letters(const Parts& line) const {
    return std::any_of(line.begin(), line.end(),
                       [&](const Component& part) { return part.height() >= kLetter * capital_; });
  }

  /// Dots, accents and underlines join the nearest line; those that are alone are dropped.
  std::vector<Parts> with_dots(std::vector<Parts> lines) const {
    std::vector<Parts> out;
    Parts above;  // dots of the line that comes next
    for (std::size_t i = 0; i < lines.size(); ++i) {
      Parts& line = lines[i];
      if (has_letters(line)) {
        line.insert(line.end(), above.begin(), above.end());
        above.clear();
        out.push_back(std::move(line));
        continue;
      }
      const auto next = std::find_if(lines.begin() + static_cast<std::ptrdiff_t>(i), lines.end(),
                                     [&](const Parts& other) { return has_letters(other); });
      const double up = out.empty() ? HUGE_VAL : distance(line, out.back());
      const double down = next == lines.end() ? HUGE_VAL : distance(line, *next);
      if (std::min(up, down) > kDotGap * capital_) continue;
      Parts& into = up < down ? out.back() : above;
      into.insert(into.end(), line.begin(), line.end());
    }
    return out;
  }

  /// White rows between a line and what may belong to it; infinite where that stands beside it.
  double distance(const Parts& dots, const Parts& line) const {
    const Component a = box_of(dots), b = box_of(line);
    if (a.left < b.left - capital_ || a.right > b.right + capital_) return HUGE_VAL;
    return std::max(a.top - b.bottom, b.top - a.bottom);
  }

  double capital_;
  std::int64_t column_ = 0;
  std::vector<InkLine> lines_;
};

}  // namespace

Component InkLine::box() const { return box_of(parts); }

double local_capital(const std::vector<Component>& parts, double otherwise, double share) {
  std::vector<std::int32_t> heights;
  for (const Component& part : parts)
    if (part.height() >= kLetter * otherwise && part.height() <= 6 * otherwise)
      heights.push_back(part.height());
  if (heights.empty()) return otherwise;
  return quantile(std::move(heights), share);
}

std::vector<InkLine> find_lines(const std::vector<Component>& parts, double capital) {
  return Layout(capital).lines(parts);
}

}  // namespace lectern::detail
