#include "data/pages/quality.h"

#include "data/text/utf8.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace lectern {
namespace {

/// What makes a character unusable, or nullptr.
const char* fault_of(char32_t c) {
  if (c < 0x20 || (c >= 0x7f && c < 0xa0)) return "control character";
  if (c == 0xfffd) return "replacement character";
  if ((c >= 0xe000 && c <= 0xf8ff) || c >= 0xf0000) return "private-use character";
  if ((c >= 0xfdd0 && c <= 0xfdef) || (c & 0xfffe) == 0xfffe) return "noncharacter";
  return nullptr;
}

struct Survey {
  std::int64_t characters = 0;
  std::string fault;

  void add(const std::string& text) {
    if (!fault.empty()) return;
    if (!is_utf8(text)) {
      fault = "text that is not UTF-8";
      return;
    }
    for (std::size_t at = 0; at < text.size();) {
      const CodePoint point = code_point(text, at);
      at += point.bytes;
      if (is_white_space(point.value) && point.value > 0x20) continue;
      if (const char* what = fault_of(point.value)) {
        fault = fmt::format("{} U+{:04X}", what, static_cast<std::uint32_t>(point.value));
        return;
      }
      ++characters;
    }
  }
};

/// True when the pixels under the box differ by more than compression noise would.
bool has_ink(const Image& image, const Box& box) {
  constexpr int kContrast = 16;
  const auto left = static_cast<std::int64_t>(box.left), top = static_cast<std::int64_t>(box.top);
  const auto right = std::min(static_cast<std::int64_t>(std::ceil(box.right)), image.width);
  const auto bottom = std::min(static_cast<std::int64_t>(std::ceil(box.bottom)), image.height);
  int least[3] = {255, 255, 255}, most[3] = {0, 0, 0};
  for (std::int64_t y = top; y < bottom; ++y) {
    const std::uint8_t* row = image.row(y);
    for (std::int64_t x = left; x < right; ++x)
      for (int c = 0; c < 3; ++c) {
        least[c] = std::min<int>(least[c], row[x * 3 + c]);
        most[c] = std::max<int>(most[c], row[x * 3 + c]);
        if (most[c] - least[c] > kContrast) return true;
      }
  }
  return false;
}

}  // namespace

std::string reason_to_drop(const Page& page, const PageQuality& quality) {
  Survey upright, rotated;
  for (const Line& line : page.lines)
    for (const Word& word : line.words) upright.add(word.text);
  for (const Word& word : page.rotated_words) rotated.add(word.text);
  if (!upright.fault.empty()) return upright.fault;
  if (!rotated.fault.empty()) return rotated.fault;
  if (upright.characters < quality.min_characters)
    return fmt::format("almost no text: {} characters", upright.characters);
  const auto all = static_cast<double>(upright.characters + rotated.characters);
  if (static_cast<double>(rotated.characters) > quality.max_rotated_fraction * all)
    return fmt::format("rotated text: {} of {} characters", rotated.characters,
                       upright.characters + rotated.characters);
  return "";
}

std::string reason_to_drop(const Page& page, const Image& image, const PageQuality& quality) {
  std::int64_t words = 0, invisible = 0;
  for (const Line& line : page.lines)
    for (const Word& word : line.words) {
      ++words;
      invisible += !has_ink(image, word.box);
    }
  if (static_cast<double>(invisible) <= quality.max_invisible_fraction * static_cast<double>(words))
    return "";
  return fmt::format("text that the picture does not show: {} of {} words", invisible, words);
}

}  // namespace lectern
