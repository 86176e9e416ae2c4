// The text side of scoring: code points, words, edit distance, loops.
#include "data/text/utf8.h"
#include "recipes/evaluate/score.h"

#include <utf8proc.h>

#include <algorithm>
#include <unordered_map>

namespace lectern {
namespace {

/// Scripts written without spaces between words: CJK ideographs, hiragana, katakana.
bool is_word_by_itself(char32_t c) {
  return (c >= 0x3041 && c <= 0x30ff) || (c >= 0x31f0 && c <= 0x31ff) ||
         (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x4e00 && c <= 0x9fff) ||
         (c >= 0xf900 && c <= 0xfaff) || (c >= 0x20000 && c <= 0x323af);
}

std::u32string collapse_spaces(std::u32string_view text) {
  std::u32string out;
  for (const char32_t c : text) {
    const bool space = is_white_space(c);
    if (space && (out.empty() || out.back() == U' ')) continue;
    out += space ? U' ' : c;
  }
  if (!out.empty() && out.back() == U' ') out.pop_back();
  return out;
}

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

std::u32string code_points(std::string_view utf8) {
  const std::string text = lossy_utf8(utf8);
  std::u32string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint next = code_point(text, at);
    out += next.value;
    at += next.bytes;
  }
  return out;
}

std::string to_utf8(std::u32string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char32_t c : text) {
    utf8proc_uint8_t bytes[4];
    const auto count = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes);
    out.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(count));
  }
  return out;
}

std::string normalize_text(std::string_view utf8) {
  return to_utf8(collapse_spaces(code_points(normalize(lossy_utf8(utf8), NormalForm::nfkc))));
}

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

std::vector<std::u32string> words(std::u32string_view text) {
  std::vector<std::u32string> out;
  bool open = false;
  for (const char32_t c : text) {
    const bool single = is_word_by_itself(c);
    if (is_white_space(c)) {
      open = false;
    } else if (single || !open) {
      out.emplace_back(1, c);
      open = !single;
    } else {
      out.back() += c;
    }
  }
  return out;
}

std::int64_t looping_tail(std::u32string_view text) {
  std::u32string reversed = collapse_spaces(text);
  std::reverse(reversed.begin(), reversed.end());
  // Z-function: match[p] = length of the common prefix of the reversed text and its shift by p, so
  // the last match[p] + p code points have period p.
  const std::size_t n = reversed.size();
  std::vector<std::size_t> match(n, 0);
  std::size_t longest = 0, left = 0, right = 0;
  for (std::size_t p = 1; p < n; ++p) {
    if (p < right) match[p] = std::min(right - p, match[p - left]);
    while (p + match[p] < n && reversed[match[p]] == reversed[p + match[p]]) ++match[p];
    if (p + match[p] > right) {
      left = p;
      right = p + match[p];
    }
    const std::size_t length = match[p] + p;
    if (length >= std::max<std::size_t>(4 * p, 32)) longest = std::max(longest, length);
  }
  return static_cast<std::int64_t>(longest);
}

}  // namespace lectern
