// The text side of scoring: words and loops.
#include "data/text/utf8.h"
#include "recipes/evaluate/score.h"

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

}  // namespace

std::string normalize_text(std::string_view utf8) {
  return to_utf8(collapse_spaces(code_points(normalize(lossy_utf8(utf8), NormalForm::nfkc))));
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
