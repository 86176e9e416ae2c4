// Which parts of a page make a line, and in which order the lines are read. Private to
// this room.
#pragma once

#include "data/layout/page_ink.h"

#include <cstdint>
#include <vector>

namespace lectern::detail {

/// Parts of one line from left to right. Lines of a column share its number, ascending in reading
/// order.
struct InkLine {
  std::vector<Component> parts;
  std::int64_t column = 0;

  Component box() const;  // area is the sum of the parts'
  std::int32_t height() const { return box().height(); }
};

/// Lines in reading order: columns of text side by side are read one after the other, anything else
/// (a table, a term beside its meaning) row by row. `capital` is capital_height() of the page.
std::vector<InkLine> find_lines(const std::vector<Component>& parts, double capital);

/// Height that `share` of the letters in these parts reach at most, specks aside: of capitals, or
/// with 0.5 of letters like x. `otherwise` when there are no letters.
double local_capital(const std::vector<Component>& parts, double otherwise, double share = 0.8);

}  // namespace lectern::detail
