#include "data/pages/quality.h"

#include "data/text/utf8.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iterator>
#include <vector>

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

/// Scripts whose vowel signs have blocks of their own, 128 characters each: Devanagari to Lao.
bool is_indic_mark(char32_t c) {
  const bool is_accent_of_all = c >= 0x951 && c <= 0x954;
  return c >= 0x900 && c <= 0xeff && is_combining_mark(c) && !is_accent_of_all;
}

/// The mark at the front of a word or behind a letter of another script, or 0.
char32_t stray_mark(const std::u32string& word) {
  constexpr char32_t kBlock = ~char32_t{0x7f}, kDottedCircle = 0x25cc;
  char32_t before = 0;
  for (const char32_t c : word) {
    if (is_combining_mark(c) && before == 0) return c;
    if (is_indic_mark(c) && (before & kBlock) != (c & kBlock) && before != kDottedCircle) return c;
    if (!is_ignorable(c)) before = c;
  }
  return 0;
}

struct Survey {
  std::int64_t characters = 0, right_to_left = 0;
  std::string fault, marks;

  void add(const std::string& text) {
    if (!fault.empty()) return;
    if (!is_utf8(text)) {
      fault = "text that is not UTF-8";
      return;
    }
    const std::u32string word = code_points(text);
    for (const char32_t c : word) {
      if (is_white_space(c) && c > 0x20) continue;
      if (const char* what = fault_of(c)) {
        fault = fmt::format("{} U+{:04X}", what, static_cast<std::uint32_t>(c));
        return;
      }
      ++characters;
      right_to_left += is_right_to_left(c);
    }
    if (const char32_t mark = stray_mark(word); mark != 0 && marks.empty())
      marks = fmt::format("a word with the combining mark U+{:04X} and no letter before it",
                          static_cast<std::uint32_t>(mark));
  }
};

/// Letters that are words of their own although the next one touches them, among all letters.
std::string fallen_apart(const Page& page) {
  constexpr double kTouching = 0.06;  // of the height of the box; a space is 0.2 and more
  std::int64_t letters = 0, alone = 0;
  for (const Line& line : page.lines)
    for (std::size_t i = 0; i < line.words.size(); ++i) {
      const Word& word = line.words[i];
      const std::int64_t count = count_characters(word.text);
      letters += count;
      if (count != 1 || !is_letter_or_digit(code_point(word.text, 0).value)) continue;
      const double near = kTouching * (word.box.bottom - word.box.top);
      const auto touches = [&](const Word& left, const Word& right) {
        return std::abs(right.box.left - left.box.right) < near &&
               count_characters(left.text) == 1 && count_characters(right.text) == 1;
      };
      alone += (i > 0 && touches(line.words[i - 1], word)) ||
               (i + 1 < line.words.size() && touches(word, line.words[i + 1]));
    }
  if (2 * alone <= letters) return "";
  return fmt::format("words that fall apart into letters: {} of {} characters", alone, letters);
}

/// Two words in one place, or "": a hidden layer under printed text, or text that is painted over.
std::string on_top_of_each_other(const Page& page) {
  constexpr double kShare = 0.6;           // of the smaller box
  constexpr std::int64_t kCharacters = 3;  // accents and the like are set over letters
  std::vector<const Word*> words;
  for (const Line& line : page.lines)
    for (const Word& word : line.words)
      if (count_characters(word.text) >= kCharacters) words.push_back(&word);
  std::sort(words.begin(), words.end(),
            [](const Word* a, const Word* b) { return a->box.top < b->box.top; });
  const auto area = [](const Box& box) {
    return std::max(box.right - box.left, 0.0) * std::max(box.bottom - box.top, 0.0);
  };
  for (std::size_t i = 0; i < words.size(); ++i)
    for (std::size_t j = i + 1; j < words.size() && words[j]->box.top < words[i]->box.bottom; ++j) {
      const Box &a = words[i]->box, &b = words[j]->box;
      const double common = area({std::max(a.left, b.left), std::max(a.top, b.top),
                                  std::min(a.right, b.right), std::min(a.bottom, b.bottom)});
      if (common > kShare * std::min(area(a), area(b)))
        return fmt::format("words on top of each other: such as \"{}\" and \"{}\"", words[i]->text,
                           words[j]->text);
    }
  return "";
}

/// Pixels of a picture, whole ones that a box touches.
struct Area {
  std::int64_t left = 0, top = 0, right = 0, bottom = 0;

  std::int64_t width() const { return right - left; }
  std::int64_t height() const { return bottom - top; }
};

Area area_of(const Box& box, const Image& image) {
  return {static_cast<std::int64_t>(box.left), static_cast<std::int64_t>(box.top),
          std::min(static_cast<std::int64_t>(std::ceil(box.right)), image.width),
          std::min(static_cast<std::int64_t>(std::ceil(box.bottom)), image.height)};
}

constexpr int kContrast = 16;  // more than the noise of compression

bool differ(int a, int b) { return std::abs(a - b) > kContrast; }

/// The part of a picture under a word, one colour channel at a time.
class Patch {
 public:
  Patch(const Image& image, const Area& area, int channel)
      : image_(image), area_(area), channel_(channel) {
    for (std::int64_t y = area.top; y < area.bottom; ++y)
      rows_.push_back(median(area.width(), [&](std::int64_t i) { return at(area.left + i, y); }));
    for (std::int64_t x = area.left; x < area.right; ++x)
      columns_.push_back(
          median(area.height(), [&](std::int64_t i) { return at(x, area.top + i); }));
    paper_ = median(area.width() * area.height(), [&](std::int64_t i) {
      return at(area.left + i % area.width(), area.top + i / area.width());
    });
  }

  /// Anything but the colour of most of the box.
  bool is_ink(std::int64_t x, std::int64_t y) const { return differ(at(x, y), paper_); }

  /// Ink that is no rule: a pixel unlike most of its row and most of its column.
  bool is_mark(std::int64_t x, std::int64_t y) const {
    const int pixel = at(x, y);
    return differ(pixel, rows_[static_cast<std::size_t>(y - area_.top)]) &&
           differ(pixel, columns_[static_cast<std::size_t>(x - area_.left)]);
  }

  bool has_marks() const {
    for (std::int64_t y = area_.top; y < area_.bottom; ++y)
      for (std::int64_t x = area_.left; x < area_.right; ++x)
        if (is_mark(x, y)) return true;
    return false;
  }

  bool has_ink(std::int64_t from, std::int64_t to) const {
    for (std::int64_t y = area_.top; y < area_.bottom; ++y)
      for (std::int64_t x = from; x < to; ++x)
        if (is_ink(x, y)) return true;
    return false;
  }

  /// A stroke along most of the box, such as a dash or a bar, that ends in it or shortly behind.
  bool has_strokes() const {
    const std::int64_t reach = std::max<std::int64_t>(area_.height(), 2);
    const auto row = [&](std::int64_t x, std::size_t i) {
      return at(x, area_.top + static_cast<std::int64_t>(i));
    };
    const auto column = [&](std::int64_t y, std::size_t i) {
      return at(area_.left + static_cast<std::int64_t>(i), y);
    };
    return ends(rows_, std::max<std::int64_t>(area_.left - reach, 0),
                std::min(area_.right + reach, image_.width), row) ||
           ends(columns_, std::max<std::int64_t>(area_.top - reach, 0),
                std::min(area_.bottom + reach, image_.height), column);
  }

 private:
  int at(std::int64_t x, std::int64_t y) const { return image_.row(y)[x * 3 + channel_]; }

  template <typename Get>
  static int median(std::int64_t count, const Get& get) {
    std::vector<int> values;
    for (std::int64_t i = 0; i < count; ++i) values.push_back(get(i));
    const auto middle = values.begin() + count / 2;
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
  }

  /// Whether a stripe of ink is not the same all the way from one place to another.
  template <typename Get>
  bool ends(const std::vector<int>& stripes, std::int64_t from, std::int64_t to,
            const Get& get) const {
    for (std::size_t i = 0; i < stripes.size(); ++i) {
      if (!differ(stripes[i], paper_)) continue;
      for (std::int64_t at = from; at < to; ++at)
        if (differ(stripes[i], get(at, i))) return true;
    }
    return false;
  }

  const Image& image_;
  Area area_;
  int channel_;
  std::vector<int> rows_, columns_;  // medians
  int paper_ = 0;                    // that of all pixels
};

bool is_shown(const Image& image, const Box& box) {
  Area area = area_of(box, image);
  if (area.width() <= 0 || area.height() <= 0) return false;
  // Of a dot nothing but ink may lie in the box.
  constexpr std::int64_t kDot = 6, kMargin = 2;  // pixels
  if (std::max(area.width(), area.height()) <= kDot)
    area = {std::max<std::int64_t>(area.left - kMargin, 0),
            std::max<std::int64_t>(area.top - kMargin, 0),
            std::min(area.right + kMargin, image.width),
            std::min(area.bottom + kMargin, image.height)};
  for (int channel = 0; channel < 3; ++channel) {
    const Patch patch(image, area, channel);
    if (patch.has_marks() || patch.has_strokes()) return true;
  }
  return false;
}

/// Whether a quarter of a word shows nothing, as where a picture's edge cuts it off. Told of words
/// of four letters or more: of fewer, a quarter may lie between two.
bool is_cut_off(const Image& image, const Word& word) {
  const std::u32string text = code_points(word.text);
  if (text.size() < 4 || !std::all_of(text.begin(), text.end(), is_letter_or_digit)) return false;
  const Area area = area_of(word.box, image);
  if (area.width() < 16) return false;  // pixels: too coarse to tell
  const auto colours = [&](int channel) { return Patch(image, area, channel); };
  const Patch patches[] = {colours(0), colours(1), colours(2)};
  for (std::int64_t quarter = 0; quarter < 4; ++quarter) {
    const std::int64_t from = area.left + area.width() * quarter / 4,
                       to = area.left + area.width() * (quarter + 1) / 4;
    const auto has_ink = [&](const Patch& patch) { return patch.has_ink(from, to); };
    if (std::none_of(std::begin(patches), std::end(patches), has_ink)) return true;
  }
  return false;
}

/// Whether a hyphen is to be seen around character `at` of a word of `count`: a stroke of half the
/// width of a letter, low and in the middle of the line, with white on either side.
bool shows_hyphen(const Image& image, const Box& box, std::int64_t at, std::int64_t count) {
  // Shares of the box, which reaches from about the ascent to the descent; beyond kEdge the lines
  // above and below may reach in.
  constexpr double kTop = 0.25, kBottom = 0.64, kThick = 0.25, kEdge = 0.1;
  const Area all = area_of(box, image);
  const double letter = (box.right - box.left) / static_cast<double>(count);
  const auto column = [&](double letters) {
    const auto x = static_cast<std::int64_t>(box.left + letter * letters);
    return std::clamp(x, all.left, all.right);
  };
  const auto row = [&](double share) {
    return all.top + std::lround(share * static_cast<double>(all.height()));
  };
  const Patch patch(image, all, 1);
  double run = -1;  // columns of a stroke that has white before it
  for (std::int64_t x = column(static_cast<double>(at) - 1.5),
                    end = column(static_cast<double>(at) + 2.5);
       x < end; ++x) {
    std::int64_t within = 0, outside = 0;
    for (std::int64_t y = row(kEdge); y < row(1 - kEdge); ++y)
      if (patch.is_ink(x, y)) ++(y >= row(kTop) && y < row(kBottom) ? within : outside);
    if (within + outside == 0) {
      if (run >= 0.4 * letter) return true;
      run = 0;
    } else {
      const bool is_stroke =
          outside == 0 && within <= std::lround(kThick * static_cast<double>(all.height()));
      run = is_stroke && run >= 0 ? run + 1 : -1;
    }
  }
  return false;
}

void settle_soft_hyphens(Word& word, const Image& image) {
  constexpr char32_t kSoftHyphen = 0xad;
  const std::u32string text = code_points(word.text);
  if (text.find(kSoftHyphen) == std::u32string::npos) return;
  std::u32string out;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (text[i] != kSoftHyphen)
      out += text[i];
    else if (shows_hyphen(image, word.box, static_cast<std::int64_t>(i),
                          static_cast<std::int64_t>(text.size())))
      out += U'-';
  word.text = to_utf8(out);
}

}  // namespace

std::string reason_to_drop(const Page& page, const PageQuality& quality) {
  Survey upright, rotated;
  for (const Line& line : page.lines)
    for (const Word& word : line.words) upright.add(word.text);
  for (const Word& word : page.rotated_words) rotated.add(word.text);
  if (!upright.fault.empty()) return upright.fault;
  if (!rotated.fault.empty()) return rotated.fault;
  if (const std::int64_t letters = upright.right_to_left + rotated.right_to_left;
      letters > 0 && !quality.keeps_right_to_left)
    return fmt::format("right-to-left text: {} of {} characters", letters,
                       upright.characters + rotated.characters);
  if (!upright.marks.empty()) return upright.marks;
  const std::int64_t all = upright.characters + rotated.characters;
  if (all >= quality.min_characters && static_cast<double>(rotated.characters) >
                                           quality.max_rotated_fraction * static_cast<double>(all))
    return fmt::format("rotated text: {} of {} characters", rotated.characters, all);
  if (upright.characters < quality.min_characters)
    return fmt::format("almost no text: {} characters", upright.characters);
  const std::string apart = fallen_apart(page);
  return apart.empty() ? on_top_of_each_other(page) : apart;
}

std::string reason_to_drop(const Page& page, const Image& image, const PageQuality& quality) {
  std::int64_t words = 0, invisible = 0;
  const Word* cut_off = nullptr;
  for (const Line& line : page.lines)
    for (const Word& word : line.words) {
      ++words;
      if (!is_shown(image, word.box))
        ++invisible;
      else if (cut_off == nullptr && is_cut_off(image, word))
        cut_off = &word;
    }
  if (static_cast<double>(invisible) > quality.max_invisible_fraction * static_cast<double>(words))
    return fmt::format("text that the picture does not show: {} of {} words", invisible, words);
  if (cut_off != nullptr)
    return fmt::format("text that the picture shows only in part: such as \"{}\"", cut_off->text);
  return "";
}

std::int64_t keep_what_is_shown(Page& page, const Image& image) {
  std::int64_t hidden = 0;
  for (Line& line : page.lines) {
    hidden += static_cast<std::int64_t>(
        std::erase_if(line.words, [&](const Word& word) { return !is_shown(image, word.box); }));
    for (Word& word : line.words) settle_soft_hyphens(word, image);
  }
  fit_to_image(page, image.width, image.height);
  return hidden;
}

}  // namespace lectern
