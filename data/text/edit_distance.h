// How far two texts are from each other.
#pragma once

#include <cstdint>
#include <string_view>

namespace lectern {

/// Levenshtein distance: the fewest insertions, deletions and substitutions of one code point that
/// turn `a` into `b`. Myers' bit-parallel algorithm in 64-row blocks: O(|a| |b| / 64) time and
/// O(|a| + |b|) memory (G. Myers, J. ACM 46(3), 1999; H. Hyyro, 2003, for the blocks).
std::int64_t edit_distance(std::u32string_view a, std::u32string_view b);
/// Of UTF-8; see code_points().
std::int64_t edit_distance(std::string_view a, std::string_view b);

}  // namespace lectern
