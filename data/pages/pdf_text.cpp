#include "data/pages/pdf_text.h"

#include "core/error.h"
#include "data/text/utf8.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>

namespace lectern {
namespace {

constexpr double kPointsPerInch = 72.0;

/// Appends what the reference "&name;" stands for; false when it is none.
bool append_reference(std::string& out, std::string_view name) {
  constexpr std::pair<std::string_view, char> kNamed[] = {
      {"amp", '&'}, {"lt", '<'}, {"gt", '>'}, {"quot", '"'}, {"apos", '\''}};
  for (const auto& [known, character] : kNamed)
    if (name == known) {
      out += character;
      return true;
    }
  if (!name.starts_with('#')) return false;
  name.remove_prefix(1);
  const bool hexadecimal = name.starts_with('x') || name.starts_with('X');
  if (hexadecimal) name.remove_prefix(1);
  std::uint32_t value = 0;
  const auto [end, error] =
      std::from_chars(name.data(), name.data() + name.size(), value, hexadecimal ? 16 : 10);
  if (error != std::errc() || end != name.data() + name.size() || value > 0x10ffff ||
      (value >= 0xd800 && value < 0xe000))
    return false;
  append_utf8(out, value);
  return true;
}

std::string unescape(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const std::size_t plain = std::min(text.find('&'), text.size());
    out += text.substr(0, plain);
    text.remove_prefix(plain);
    if (text.empty()) break;
    const std::size_t end = text.substr(0, 12).find(';');
    if (end != std::string_view::npos && append_reference(out, text.substr(1, end - 1))) {
      text.remove_prefix(end + 1);
    } else {
      out += '&';
      text.remove_prefix(1);
    }
  }
  return out;
}

/// Latin and Armenian ligatures; Kangxi and other CJK radicals.
bool is_shape(char32_t c) { return (c >= 0xfb00 && c <= 0xfb17) || (c >= 0x2e80 && c <= 0x2fdf); }

constexpr char32_t kSoftHyphen = 0xad, kNonJoiner = 0x200c, kJoiner = 0x200d;

/// Joiners leave no ink but change the letters beside them: about a virama they choose between a
/// half letter, a joined one and an open sign, and between pictures they make one of two. Elsewhere
/// nothing shows that they are there (or the page is dropped: Arabic, Persian).
bool shapes_neighbours(char32_t c, char32_t before, char32_t after) {
  if (c != kJoiner && c != kNonJoiner) return false;
  if (is_virama(before) || is_virama(after)) return true;
  return c == kJoiner && is_pictograph(before) && is_pictograph(after);
}

/// Without characters that no picture shows; a soft hyphen at the end of a word is a hyphen.
std::u32string with_ink(const std::u32string& text) {
  std::u32string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char32_t c = text[i];
    const char32_t after = i + 1 < text.size() ? text[i + 1] : 0;
    const bool is_kept = c == kSoftHyphen || !is_ignorable(c) ||
                         shapes_neighbours(c, out.empty() ? 0 : out.back(), after);
    // White space within a word: one glyph stood for several characters.
    if (is_kept) out += c > 0x20 && is_white_space(c) ? U' ' : c;
  }
  if (!out.empty() && out.back() == kSoftHyphen) out.back() = U'-';
  out.erase(out.find_last_not_of(U' ') + 1);
  out.erase(0, std::min(out.find_first_not_of(U' '), out.size()));
  return out;
}

/// Words with bytes that are not UTF-8 are left for the quality filter to find.
std::string plain_letters(std::string text) {
  if (std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; }) ||
      !is_utf8(text))
    return text;
  std::string out;
  for (const char32_t c : with_ink(code_points(text))) {
    std::string character;
    append_utf8(character, c);
    out += is_shape(c) ? normalize(character, NormalForm::nfkc) : character;
  }
  return normalize(out, NormalForm::nfc);
}

/// Several characters in a box far taller than wide stand on their side or above each other. Two
/// narrow letters ("il") reach a ratio of 1.7.
bool is_upright_box(const Box& box, std::int64_t characters) {
  const double ratio = (box.bottom - box.top) / std::max(box.right - box.left, 1e-9);
  return characters >= 2 && ratio > (characters == 2 ? 2.5 : 2.0);
}

bool runs_vertically(const Line& line) {
  std::int64_t upright = 0, characters = 0;
  for (const Word& word : line.words) {
    const std::int64_t count = count_characters(word.text);
    characters += count;
    if (is_upright_box(word.box, count)) upright += count;
  }
  return 2 * upright > characters ||
         (line.words.size() >= 3 && is_upright_box(line.box, characters));
}

double middle(double a, double b) { return 0.5 * (a + b); }

/// +1: the words go to the right, the way their letters do; -1: to the left, so they stand on their
/// heads; 0: not to be told from one word.
int direction_of_words(const Line& line) {
  std::int64_t balance = 0;
  for (std::size_t i = 1; i < line.words.size(); ++i) {
    const Box &a = line.words[i - 1].box, &b = line.words[i].box;
    const double step = middle(b.left, b.right) - middle(a.left, a.right);
    balance += step > 0 ? 1 : step < 0 ? -1 : 0;
  }
  return balance > 0 ? 1 : balance < 0 ? -1 : 0;
}

/// The same of lines of a block: +1 when they go down.
int direction_of_lines(const Line& above, const Line& below) {
  const double step =
      middle(below.box.top, below.box.bottom) - middle(above.box.top, above.box.bottom);
  const double height = above.box.bottom - above.box.top;
  return step > 0.5 * height ? 1 : step < -0.5 * height ? -1 : 0;
}

/// Lines whose words, in the order in which they are read, run to the left, and those about which
/// only their neighbours tell: lines of one word.
std::vector<bool> lines_upside_down(const std::vector<Line>& lines) {
  std::vector<int> direction;
  std::map<std::int64_t, int> of_block;
  int of_page = 0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    direction.push_back(direction_of_words(lines[i]));
    int& block = of_block[lines[i].block];
    block += 2 * direction[i];
    of_page += direction[i];
    if (i > 0 && lines[i - 1].block == lines[i].block)
      block += direction_of_lines(lines[i - 1], lines[i]);
  }
  std::vector<bool> out;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    int which = direction[i];
    if (which == 0) which = of_block[lines[i].block];
    if (which == 0) which = of_page;
    out.push_back(which < 0);
  }
  return out;
}

void set_apart_upside_down(Page& page) {
  const std::vector<bool> upside_down = lines_upside_down(page.lines);
  std::vector<Line> upright;
  for (std::size_t i = 0; i < page.lines.size(); ++i) {
    if (!upside_down[i]) {
      upright.push_back(std::move(page.lines[i]));
      continue;
    }
    for (Word& word : page.lines[i].words) page.rotated_words.push_back(std::move(word));
  }
  page.lines = std::move(upright);
}

class Scanner {
 public:
  Scanner(std::string_view text, double scale, const std::string& name)
      : rest_(text), scale_(scale), name_(name) {}

  std::vector<Page> scan() {
    if (!skip_past("<doc>")) refuse("has no <doc>");
    for (;;) {
      const std::string_view tag = next_tag();
      if (tag == "/doc") return std::move(pages_);
      if (is(tag, "page")) {
        pages_.emplace_back();
        pages_.back().width = pixels(attribute(tag, " width=\""));
        pages_.back().height = pixels(attribute(tag, " height=\""));
      } else if (is(tag, "block")) {
        ++block_;
      } else if (is(tag, "line")) {
        line_ = Line{};
        line_.box = box_of(tag).value_or(Box{});
        line_.block = block_;
      } else if (is(tag, "word")) {
        word(tag);
      } else if (tag == "/line") {
        finish_line();
      }
    }
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    fail<IoError>(fmt::format("{}: pdftotext's output {}", name_, what));
  }

  bool skip_past(std::string_view what) {
    const std::size_t at = rest_.find(what);
    if (at == std::string_view::npos) return false;
    rest_.remove_prefix(at + what.size());
    return true;
  }

  /// What stands between the next "<" and ">"; text in front of it is skipped.
  std::string_view next_tag() {
    const std::size_t open = rest_.find('<');
    const std::size_t close = open == std::string_view::npos ? open : rest_.find('>', open);
    if (close == std::string_view::npos) refuse("is cut off");
    const std::string_view tag = rest_.substr(open + 1, close - open - 1);
    rest_.remove_prefix(close + 1);
    return tag;
  }

  static bool is(std::string_view tag, std::string_view element) {
    return tag.starts_with(element) && (tag.size() == element.size() || tag[element.size()] == ' ');
  }

  static std::optional<double> attribute(std::string_view tag, std::string_view key) {
    const std::size_t at = tag.find(key);
    if (at == std::string_view::npos) return std::nullopt;
    double value = 0;
    const char* begin = tag.data() + at + key.size();
    const auto [end, error] = std::from_chars(begin, tag.data() + tag.size(), value);
    if (error != std::errc() || !std::isfinite(value)) return std::nullopt;
    return value;
  }

  std::int64_t pixels(std::optional<double> points) const {
    return static_cast<std::int64_t>(std::ceil(std::clamp(points.value_or(0) * scale_, 0.0, 1e9)));
  }

  std::optional<Box> box_of(std::string_view tag) const {
    const auto left = attribute(tag, " xMin=\""), top = attribute(tag, " yMin=\""),
               right = attribute(tag, " xMax=\""), bottom = attribute(tag, " yMax=\"");
    if (!left || !top || !right || !bottom) return std::nullopt;
    return Box{*left * scale_, *top * scale_, *right * scale_, *bottom * scale_};
  }

  void word(std::string_view tag) {
    const std::size_t end = rest_.find("</word>");
    if (end == std::string_view::npos) refuse("is cut off");
    const std::optional<Box> box = box_of(tag);
    std::string text = plain_letters(unescape(rest_.substr(0, end)));
    rest_.remove_prefix(end);
    if (box && !text.empty()) line_.words.push_back({std::move(text), *box});
  }

  void finish_line() {
    if (pages_.empty()) refuse("has a line outside of a page");
    if (line_.words.empty()) return;
    Page& page = pages_.back();
    if (runs_vertically(line_)) {
      for (Word& word : line_.words) page.rotated_words.push_back(std::move(word));
    } else {
      page.lines.push_back(std::move(line_));
    }
    line_ = Line{};
  }

  std::string_view rest_;
  double scale_;
  std::string name_;
  std::vector<Page> pages_;
  Line line_;
  std::int64_t block_ = 0;
};

}  // namespace

std::vector<Page> parse_bbox_layout(std::string_view xhtml, double dots_per_inch,
                                    const std::string& name) {
  std::vector<Page> pages = Scanner(xhtml, dots_per_inch / kPointsPerInch, name).scan();
  for (Page& page : pages) {
    page.dots_per_inch = dots_per_inch;
    set_apart_upside_down(page);
  }
  return pages;
}

}  // namespace lectern
