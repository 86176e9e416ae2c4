// What is printed on a page picture: paper, ink, connected components, the slope of the lines.
// Private to this room.
#pragma once

#include "data/images/image.h"

#include <cstdint>
#include <vector>

namespace lectern::detail {

/// Darkest channel of the paper around each tile of kPaperTile x kPaperTile pixels, 0 .. 255.
/// What is much darker than the page's paper (a photograph) does not count as paper.
struct PaperLevels {
  std::int64_t columns = 0, rows = 0;  // 0: the picture has no paper, it is dark everywhere
  std::vector<std::uint8_t> levels;    // row-major

  std::uint8_t at(std::int64_t x, std::int64_t y) const;  // of a pixel
};
inline constexpr std::int64_t kPaperTile = 32;
PaperLevels paper_of(const Image& page);

/// ink[y * width + x] is 1 where a pixel is clearly darker than the paper around it.
struct InkPlane {
  std::int64_t width = 0, height = 0;
  std::vector<std::uint8_t> ink;
};
InkPlane find_ink(const Image& page, const PaperLevels& paper);

/// Ink that touches (also at corners): usually a letter. right and bottom are exclusive.
struct Component {
  std::int32_t left = 0, top = 0, right = 0, bottom = 0;
  std::int64_t area = 0;  // inked pixels

  std::int32_t width() const { return right - left; }
  std::int32_t height() const { return bottom - top; }
};
/// In order of their first pixel from the top.
std::vector<Component> components_of(const InkPlane& plane);

/// Height of capitals and of letters like b, d, h: four of five letters are at most so high. 0 when
/// there is nothing of the size of a letter; what is higher than `highest` is none.
double capital_height(const std::vector<Component>& parts, double highest);

/// What may be text: no rules, no pictures (nor what lies in them), no lonely specks.
std::vector<Component> text_parts(const std::vector<Component>& parts, double capital);

/// Pixels that lines sink by for each pixel to the right, within +-0.06; 0 unless the feet of the
/// letters say clearly that the page is turned.
double slope_of(const std::vector<Component>& parts, double capital, std::int64_t width);

/// Rows that column x is moved up by so that lines of this slope become level.
std::int64_t rise(double slope, std::int64_t x, std::int64_t width);
InkPlane level_ink(const InkPlane& plane, double slope);

}  // namespace lectern::detail
