#include "data/shards/grounding.h"

#include "core/error.h"
#include "data/shards/format.h"
#include "data/text/utf8.h"

#include <algorithm>
#include <charconv>

namespace lectern {
namespace {

[[noreturn]] void refuse_place(const std::string& message) { throw ConfigError(message); }

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

/// The first tag in `text`, and which one it is; npos without any.
std::pair<std::size_t, std::size_t> next_tag(std::string_view text, std::size_t from) {
  std::size_t at = std::string_view::npos, which = 0;
  for (std::size_t i = 0; i < kGroundingTags.size(); ++i)
    if (const std::size_t found = text.find(kGroundingTags[i], from); found < at) {
      at = found;
      which = i;
    }
  return {at, which};
}

/// [[1, 2, 3, 4], [5, 6, 7, 8]] and nothing else.
class BoxList {
 public:
  explicit BoxList(std::string_view text) : text_(text) {}

  std::vector<std::array<std::int64_t, 4>> read() {
    std::vector<std::array<std::int64_t, 4>> out;
    expect('[');
    do out.push_back(box());
    while (take(','));
    expect(']');
    skip();
    if (at_ != text_.size()) refuse("must end after its list");
    return out;
  }

 private:
  [[noreturn]] void refuse(const std::string& rule) const {
    constexpr std::size_t kShown = 60;
    refuse_place(fmt::format("<|det|> {}, got \"{}{}\"", rule, utf8_prefix(text_, kShown),
                             text_.size() > kShown ? "..." : ""));
  }
  void skip() {
    while (at_ < text_.size() && is_blank(text_.substr(at_, 1))) ++at_;
  }
  bool take(char wanted) {
    skip();
    if (at_ == text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }
  void expect(char wanted) {
    if (!take(wanted)) refuse("must be [[left, top, right, bottom], ...]");
  }
  std::int64_t number() {
    skip();
    std::int64_t value = -1;
    const char* const end = text_.data() + text_.size();
    const auto [rest, error] = std::from_chars(text_.data() + at_, end, value);
    if (error != std::errc()) refuse("must be [[left, top, right, bottom], ...]");
    at_ = static_cast<std::size_t>(rest - text_.data());
    if (value < 0 || value > kLastPlace || (at_ < text_.size() && text_[at_] == '.'))
      refuse(fmt::format("must have whole numbers in 0 .. {}", kLastPlace));
    return value;
  }
  std::array<std::int64_t, 4> box() {
    std::array<std::int64_t, 4> out{};
    expect('[');
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (i > 0) expect(',');
      out[i] = number();
    }
    expect(']');
    if (out[0] > out[2] || out[1] > out[3]) refuse("must have left <= right and top <= bottom");
    return out;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

std::vector<Grounding> parse_groundings(std::string_view text) {
  std::vector<Grounding> out;
  std::size_t end = 0;  // of the last tag
  for (std::size_t expected = 0;; expected = (expected + 1) % kGroundingTags.size()) {
    const auto [at, which] = next_tag(text, end);
    if (at == std::string_view::npos) {
      if (expected == 0) return out;
      refuse_place(fmt::format("{} must be followed by {}, got the end of the answer",
                               kGroundingTags[expected - 1], kGroundingTags[expected]));
    }
    if (which != expected)
      refuse_place(fmt::format("{} must {}, got {}",
                               expected == 0 ? kGroundingTags[which] : kGroundingTags[expected - 1],
                               expected == 0
                                   ? "come after its partner"
                                   : fmt::format("be followed by {}", kGroundingTags[expected]),
                               expected == 0 ? "it alone" : kGroundingTags[which]));
    const std::string_view between = text.substr(end, at - end);
    end = at + kGroundingTags[which].size();
    if (which == 1) {
      if (is_blank(between)) refuse_place("<|ref|> must have a label, got none");
      out.push_back({std::string(between), {}});
    } else if (which == 2 && !is_blank(between)) {
      refuse_place("<|/ref|> must be followed by <|det|>, got text between them");
    } else if (which == 3) {
      out.back().boxes = BoxList(between).read();
    }
  }
}

std::vector<LabelledBox> boxes_of(const std::vector<Grounding>& groundings, std::int64_t width,
                                  std::int64_t height) {
  std::vector<LabelledBox> out;
  const auto x = [&](std::int64_t place) {
    return static_cast<double>(place * width) / static_cast<double>(kLastPlace);
  };
  const auto y = [&](std::int64_t place) {
    return static_cast<double>(place * height) / static_cast<double>(kLastPlace);
  };
  for (const Grounding& each : groundings)
    for (const auto& [left, top, right, bottom] : each.boxes)
      out.push_back({std::string(utf8_prefix(each.label, detail::kMaxNameBytes)),
                     {x(left), y(top), x(right), y(bottom)}});
  return out;
}

}  // namespace lectern
