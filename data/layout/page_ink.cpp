#include "data/layout/page_ink.h"

#include "core/statistics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <span>

namespace lectern::detail {
namespace {

constexpr double kPaperShare = 0.9;     // of a tile's pixels are at most as bright as its paper
constexpr double kShadow = 0.6;         // darker than this times the page's paper is no paper
constexpr std::uint8_t kNoPaper = 48;   // a page whose brightest tiles are darker has none
constexpr double kInkBelow = 0.72;      // times the paper; thin grey strokes still count
constexpr double kSteepest = 0.06;      // slopes that are tried, 3.4 degrees
constexpr double kSlopeStep = 0.001;    // less than a pixel across a page
constexpr double kClearlyBetter = 1.1;  // score of a slope against that of level lines
constexpr std::size_t kFewParts = 30;   // too few to tell a slope from

std::uint8_t darkest(const std::uint8_t* pixel) { return std::min({pixel[0], pixel[1], pixel[2]}); }

/// The level that `share` of the counted pixels are at most as bright as.
std::uint8_t percentile(const std::array<std::int32_t, 256>& counts, double share) {
  std::int64_t total = 0;
  for (const std::int32_t count : counts) total += count;
  const auto wanted = static_cast<std::int64_t>(share * static_cast<double>(total));
  std::int64_t sum = 0;
  for (std::size_t level = 0; level < counts.size(); ++level) {
    sum += counts[level];
    if (sum > wanted) return static_cast<std::uint8_t>(level);
  }
  return 255;
}

/// Bright end of each tile.
std::vector<std::uint8_t> tile_levels(const Image& page, std::int64_t columns, std::int64_t rows) {
  std::vector<std::uint8_t> out;
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t column = 0; column < columns; ++column) {
      std::array<std::int32_t, 256> counts{};
      const std::int64_t right = std::min(page.width, (column + 1) * kPaperTile);
      const std::int64_t bottom = std::min(page.height, (row + 1) * kPaperTile);
      for (std::int64_t y = row * kPaperTile; y < bottom; ++y)
        for (std::int64_t x = column * kPaperTile; x < right; ++x)
          ++counts[darkest(page.row(y) + 3 * x)];
      out.push_back(percentile(counts, kPaperShare));
    }
  return out;
}

/// Labels of runs of ink that touch, joined as they are found.
class Labels {
 public:
  std::int32_t add(std::int32_t left, std::int32_t right, std::int32_t y) {
    parents_.push_back(static_cast<std::int32_t>(parents_.size()));
    parts_.push_back({left, y, right, y + 1, right - left});
    return parents_.back();
  }
  void extend(std::int32_t label, std::int32_t left, std::int32_t right, std::int32_t y) {
    join_boxes(parts_[static_cast<std::size_t>(label)], {left, y, right, y + 1, right - left});
  }
  std::int32_t root(std::int32_t label) {
    while (parent(label) != label) {
      parent(label) = parent(parent(label));
      label = parent(label);
    }
    return label;
  }
  /// The older label stays, so that the order does not depend on how parts touch.
  std::int32_t join(std::int32_t a, std::int32_t b) {
    a = root(a);
    b = root(b);
    if (a == b) return a;
    if (b < a) std::swap(a, b);
    parent(b) = a;
    join_boxes(parts_[static_cast<std::size_t>(a)], parts_[static_cast<std::size_t>(b)]);
    return a;
  }
  std::vector<Component> roots() const {
    std::vector<Component> out;
    for (std::size_t i = 0; i < parts_.size(); ++i)
      if (parents_[i] == static_cast<std::int32_t>(i)) out.push_back(parts_[i]);
    return out;
  }

 private:
  std::int32_t& parent(std::int32_t label) { return parents_[static_cast<std::size_t>(label)]; }
  static void join_boxes(Component& into, const Component& from) {
    into.left = std::min(into.left, from.left);
    into.top = std::min(into.top, from.top);
    into.right = std::max(into.right, from.right);
    into.bottom = std::max(into.bottom, from.bottom);
    into.area += from.area;
  }

  std::vector<std::int32_t> parents_;
  std::vector<Component> parts_;
};

struct Run {
  std::int32_t left, right, label;
};

/// Which parts are near a place: a grid of cells as large as a letter.
class Neighbourhood {
 public:
  Neighbourhood(std::span<const Component> parts, double cell)
      : cell_(std::max<std::int32_t>(1, static_cast<std::int32_t>(std::ceil(cell)))) {
    for (const Component& part : parts) {
      columns_ = std::max(columns_, part.right / cell_ + 1);
      rows_ = std::max(rows_, part.bottom / cell_ + 1);
    }
    cells_.resize(static_cast<std::size_t>(columns_) * static_cast<std::size_t>(rows_));
    for (const Component& part : parts)
      for_each(part, [&](std::vector<Component>& cell) { cell.push_back(part); });
  }

  bool touches(const Component& box) {
    bool found = false;
    for_each(box, [&](std::vector<Component>& cell) {
      for (const Component& part : cell)
        found = found || (part.left < box.right && box.left < part.right && part.top < box.bottom &&
                          box.top < part.bottom);
    });
    return found;
  }

 private:
  template <typename F>
  void for_each(const Component& box, F&& f) {
    for (std::int32_t row = std::max(0, box.top / cell_);
         row <= std::min(rows_ - 1, box.bottom / cell_); ++row)
      for (std::int32_t column = std::max(0, box.left / cell_);
           column <= std::min(columns_ - 1, box.right / cell_); ++column)
        f(cells_[static_cast<std::size_t>(row) * static_cast<std::size_t>(columns_) +
                 static_cast<std::size_t>(column)]);
  }

  std::int32_t cell_, columns_ = 0, rows_ = 0;
  std::vector<std::vector<Component>> cells_;
};

bool is_rule(const Component& part, double capital) {
  const double width = part.width(), height = part.height();
  return (width > 4 * capital && height < 0.35 * capital) ||
         (height > 2.5 * capital && width < 0.35 * capital);
}

/// Share of its box that is inked.
double density(const Component& part) {
  return static_cast<double>(part.area) /
         (static_cast<double>(part.width()) * static_cast<double>(part.height()));
}

/// A picture, a frame, a curve: letters that touch are less high or denser.
bool is_graphic(const Component& part, double capital) {
  const double width = part.width(), height = part.height();
  return height > 6 * capital || (width > 30 * capital && height > 2.2 * capital) ||
         (width > 5 * capital && height > 2.2 * capital && density(part) < 0.2);
}

/// A frame around text is nearly empty, a picture is not.
bool is_dense(const Component& part) { return density(part) > 0.12; }

bool is_speck(const Component& part, double capital) {
  return std::max(part.width(), part.height()) <= 0.35 * capital &&
         static_cast<double>(part.area) <= std::max(3.0, 0.05 * capital * capital);
}

bool holds(const Component& outer, const Component& inner) {
  const std::int32_t x = (inner.left + inner.right) / 2, y = (inner.top + inner.bottom) / 2;
  return x >= outer.left && x < outer.right && y >= outer.top && y < outer.bottom;
}

/// How sharply the feet of the letters stand on lines of this slope.
double sharpness(const std::vector<Component>& letters, double slope, std::int64_t width,
                 std::vector<std::int32_t>& rows) {
  std::fill(rows.begin(), rows.end(), 0);
  const std::int64_t offset = static_cast<std::int64_t>(rows.size()) / 4;
  for (const Component& part : letters) {
    const double x = 0.5 * (part.left + part.right - static_cast<double>(width));
    const auto row = std::lround(part.bottom - slope * x) + offset;
    if (row >= 0 && row < static_cast<std::int64_t>(rows.size()))
      ++rows[static_cast<std::size_t>(row)];
  }
  double sum = 0;  // of neighbouring rows together, so that rounding does not matter
  for (std::size_t row = 1; row < rows.size(); ++row)
    sum += std::pow(static_cast<double>(rows[row - 1] + rows[row]), 2);
  return sum;
}

}  // namespace

std::uint8_t PaperLevels::at(std::int64_t x, std::int64_t y) const {
  return levels[static_cast<std::size_t>(y / kPaperTile * columns + x / kPaperTile)];
}

PaperLevels paper_of(const Image& page) {
  PaperLevels out;
  if (page.empty()) return out;
  const std::int64_t columns = (page.width + kPaperTile - 1) / kPaperTile;
  const std::int64_t rows = (page.height + kPaperTile - 1) / kPaperTile;
  const std::vector<std::uint8_t> tiles = tile_levels(page, columns, rows);
  std::vector<std::uint8_t> sorted = tiles;
  std::sort(sorted.begin(), sorted.end());
  const std::uint8_t common = sorted[sorted.size() * 3 / 4];
  if (common < kNoPaper) return out;
  out.columns = columns;
  out.rows = rows;
  const auto darkest_paper = static_cast<std::uint8_t>(kShadow * common);
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t column = 0; column < columns; ++column) {
      // A tile may be full of ink: its neighbours show the paper.
      std::uint8_t level = 0;
      for (std::int64_t y = std::max<std::int64_t>(0, row - 1); y < std::min(rows, row + 2); ++y)
        for (std::int64_t x = std::max<std::int64_t>(0, column - 1);
             x < std::min(columns, column + 2); ++x)
          level = std::max(level, tiles[static_cast<std::size_t>(y * columns + x)]);
      out.levels.push_back(level < darkest_paper ? common : level);
    }
  return out;
}

InkPlane find_ink(const Image& page, const PaperLevels& paper) {
  InkPlane out{page.width, page.height, {}};
  out.ink.resize(static_cast<std::size_t>(page.width * page.height));
  if (paper.columns == 0) return out;
  std::vector<std::uint8_t> limits(static_cast<std::size_t>(page.width));
  for (std::int64_t y = 0; y < page.height; ++y) {
    if (y % kPaperTile == 0)
      for (std::int64_t x = 0; x < page.width; ++x)
        limits[static_cast<std::size_t>(x)] = static_cast<std::uint8_t>(kInkBelow * paper.at(x, y));
    const std::uint8_t* row = page.row(y);
    std::uint8_t* ink = out.ink.data() + y * page.width;
    for (std::int64_t x = 0; x < page.width; ++x)
      ink[x] = darkest(row + 3 * x) < limits[static_cast<std::size_t>(x)];
  }
  return out;
}

std::vector<Component> components_of(const InkPlane& plane) {
  Labels labels;
  std::vector<Run> above, here;
  const auto width = static_cast<std::int32_t>(plane.width);
  for (std::int32_t y = 0; y < plane.height; ++y) {
    const std::uint8_t* row = plane.ink.data() + std::int64_t{y} * plane.width;
    here.clear();
    std::size_t first = 0;  // run of the row above that may still touch
    for (std::int32_t x = 0; x < width;) {
      const void* found = std::memchr(row + x, 1, static_cast<std::size_t>(width - x));
      if (found == nullptr) break;
      const auto left = static_cast<std::int32_t>(static_cast<const std::uint8_t*>(found) - row);
      std::int32_t right = left;
      while (right < width && row[right] != 0) ++right;
      while (first < above.size() && above[first].right < left) ++first;
      std::int32_t label = -1;
      for (std::size_t i = first; i < above.size() && above[i].left <= right; ++i)
        label = label < 0 ? labels.root(above[i].label) : labels.join(label, above[i].label);
      if (label < 0)
        label = labels.add(left, right, y);
      else
        labels.extend(label, left, right, y);
      here.push_back({left, right, label});
      x = right;
    }
    std::swap(above, here);
  }
  return labels.roots();
}

double capital_height(const std::vector<Component>& parts, double highest) {
  std::vector<std::int32_t> heights;
  for (const Component& part : parts)
    if (part.height() >= 4 && part.height() <= highest && part.area >= 6 &&
        part.width() < 8 * part.height())
      heights.push_back(part.height());
  if (heights.empty()) return 0;
  return quantile(std::move(heights), 0.8);
}

std::vector<Component> text_parts(const std::vector<Component>& parts, double capital) {
  std::vector<Component> pictures, letters, specks, out;
  for (const Component& part : parts)
    if (is_graphic(part, capital) && is_dense(part)) pictures.push_back(part);
  for (const Component& part : parts) {
    if (is_rule(part, capital) || is_graphic(part, capital)) continue;
    if (std::any_of(pictures.begin(), pictures.end(),
                    [&](const Component& picture) { return holds(picture, part); }))
      continue;
    (is_speck(part, capital) ? specks : letters).push_back(part);
  }
  // A dot belongs to the letter beside, above or below it; fixed-width fonts part them widely.
  Neighbourhood near(letters, capital);
  const auto x_reach = static_cast<std::int32_t>(std::ceil(0.8 * capital));
  const auto y_reach = static_cast<std::int32_t>(std::ceil(0.4 * capital));
  out = letters;
  for (const Component& speck : specks)
    if (near.touches({speck.left - x_reach, speck.top - y_reach, speck.right + x_reach,
                      speck.bottom + y_reach, 0}))
      out.push_back(speck);
  return out;
}

double slope_of(const std::vector<Component>& parts, double capital, std::int64_t width) {
  std::vector<Component> letters;
  std::int32_t bottom = 0;
  for (const Component& part : parts) {
    if (part.height() < 0.5 * capital || part.height() > 2 * capital) continue;
    letters.push_back(part);
    bottom = std::max(bottom, part.bottom);
  }
  if (letters.size() < kFewParts) return 0;
  std::vector<std::int32_t> rows(static_cast<std::size_t>(2 * bottom + 2));
  const double level = sharpness(letters, 0, width, rows);
  double best = level, slope = 0;
  const auto steps = static_cast<int>(std::lround(kSteepest / kSlopeStep));
  for (int step = -steps; step <= steps; ++step) {
    const double score = sharpness(letters, step * kSlopeStep, width, rows);
    if (score > best) {
      best = score;
      slope = step * kSlopeStep;
    }
  }
  return best > kClearlyBetter * level ? slope : 0;
}

std::int64_t rise(double slope, std::int64_t x, std::int64_t width) {
  return std::lround(slope * (static_cast<double>(x) - 0.5 * static_cast<double>(width)));
}

InkPlane level_ink(const InkPlane& plane, double slope) {
  InkPlane out{plane.width, plane.height, std::vector<std::uint8_t>(plane.ink.size())};
  for (std::int64_t x = 0; x < plane.width; ++x) {
    const std::int64_t up = rise(slope, x, plane.width);
    const std::int64_t first = std::max<std::int64_t>(0, -up);
    for (std::int64_t y = first; y < std::min(plane.height, plane.height - up); ++y)
      out.ink[static_cast<std::size_t>(y * plane.width + x)] =
          plane.ink[static_cast<std::size_t>((y + up) * plane.width + x)];
  }
  return out;
}

}  // namespace lectern::detail
