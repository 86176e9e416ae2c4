#include "data/text/edit_distance.h"

#include "data/text/utf8.h"

#include <algorithm>
#include <unordered_map>
#include <vector>

namespace lectern {
namespace {

/// One block of 64 rows of the distance matrix moving over all columns. `carry[j]` holds the
/// horizontal difference D[top][j+1] - D[top][j] above the block, and on return the one below its
/// last row (bit `last`).
void advance_block(const std::vector<std::uint32_t>& text, const std::vector<std::uint64_t>& equal,
                   std::uint64_t last, std::vector<std::int8_t>& carry) {
  std::uint64_t plus = ~std::uint64_t{0}, minus = 0;  // vertical differences of the rows
  for (std::size_t j = 0; j < text.size(); ++j) {
    std::uint64_t match = equal[text[j]];
    const std::uint64_t vertical = match | minus;
    if (carry[j] < 0) match |= 1;
    const std::uint64_t diagonal = (((match & plus) + plus) ^ plus) | match;
    std::uint64_t horizontal_plus = minus | ~(diagonal | plus);
    std::uint64_t horizontal_minus = plus & diagonal;
    const int below = (horizontal_plus & last) ? 1 : (horizontal_minus & last) ? -1 : 0;
    horizontal_plus = (horizontal_plus << 1) | (carry[j] > 0);
    horizontal_minus = (horizontal_minus << 1) | (carry[j] < 0);
    plus = horizontal_minus | ~(vertical | horizontal_plus);
    minus = horizontal_plus & vertical;
    carry[j] = static_cast<std::int8_t>(below);
  }
}

}  // namespace

std::int64_t edit_distance(std::u32string_view a, std::u32string_view b) {
  const auto front = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  const auto same = static_cast<std::size_t>(front.first - a.begin());
  a.remove_prefix(same);
  b.remove_prefix(same);
  while (!a.empty() && !b.empty() && a.back() == b.back()) {
    a.remove_suffix(1);
    b.remove_suffix(1);
  }
  if (a.size() > b.size()) std::swap(a, b);  // fewer blocks
  if (a.empty()) return static_cast<std::int64_t>(b.size());

  std::unordered_map<char32_t, std::uint32_t> ids;  // characters of `a`; 0 for all others
  for (const char32_t c : a) ids.try_emplace(c, static_cast<std::uint32_t>(ids.size() + 1));
  std::vector<std::uint32_t> text(b.size());
  for (std::size_t j = 0; j < b.size(); ++j) {
    const auto found = ids.find(b[j]);
    text[j] = found == ids.end() ? 0 : found->second;
  }
  std::vector<std::uint64_t> equal(ids.size() + 1, 0);
  std::vector<std::int8_t> carry(b.size(), 1);  // row 0 of the matrix is 0, 1, 2, ...
  for (std::size_t start = 0; start < a.size(); start += 64) {
    const auto block = a.substr(start, 64);
    for (std::size_t i = 0; i < block.size(); ++i) equal[ids.at(block[i])] |= std::uint64_t{1} << i;
    advance_block(text, equal, std::uint64_t{1} << (block.size() - 1), carry);
    for (const char32_t c : block) equal[ids.at(c)] = 0;
  }
  auto distance = static_cast<std::int64_t>(a.size());
  for (const std::int8_t step : carry) distance += step;
  return distance;
}

std::int64_t edit_distance(std::string_view a, std::string_view b) {
  return edit_distance(code_points(a), code_points(b));
}

}  // namespace lectern
