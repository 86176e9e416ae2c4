#include "data/synthetic/text.h"

#include "data/text/utf8.h"

#include <algorithm>

namespace lectern::detail {
namespace {

constexpr char32_t kLow = 0x3000;
constexpr int kTries = 32;  // random places that are tried before the text is searched in order

}  // namespace

FaceCoverage::FaceCoverage(const FontFace& face, const std::vector<char32_t>& characters)
    : low_(kLow) {
  const std::vector<bool> has = coverage_of(face, characters);
  for (std::size_t i = 0; i < characters.size(); ++i) {
    if (!has[i]) continue;
    if (characters[i] < kLow)
      low_[characters[i]] = true;
    else
      high_.push_back(characters[i]);
    if (script_of(characters[i]) != Script::cjk) letters_.push_back(to_utf8({&characters[i], 1}));
  }
}

bool FaceCoverage::has(char32_t character) const {
  if (character < kLow) return low_[character];
  return std::binary_search(high_.begin(), high_.end(), character);
}

bool FaceCoverage::spells(std::string_view text) const {
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint point = code_point(text, at);
    if (!has(point.value)) return false;
    at += point.bytes;
  }
  return true;
}

TextChooser::TextChooser(const TextCorpus& corpus, const SyntheticOptions& options,
                         const FaceCoverage& coverage, Random random)
    : corpus_(corpus), options_(options), coverage_(coverage), random_(random) {}

bool TextChooser::is_usable(std::int64_t i, std::int64_t shortest, std::int64_t longest) const {
  const std::int64_t length = corpus_.length(i);
  return length >= shortest && length <= longest && coverage_.spells(corpus_.word(i));
}

/// Index of a word; tries random places first, then all in order, and last ignores the lengths.
std::int64_t TextChooser::find(std::int64_t shortest, std::int64_t longest, bool distinct) {
  const auto& list = corpus_.distinct();
  const std::int64_t count = distinct ? static_cast<std::int64_t>(list.size()) : corpus_.words();
  const auto word_at = [&](std::int64_t i) {
    return distinct ? list[static_cast<std::size_t>(i)] : i;
  };
  std::int64_t at = 0;
  for (int i = 0; i < kTries; ++i) {
    at = static_cast<std::int64_t>(random_.below(static_cast<std::uint64_t>(count)));
    if (is_usable(word_at(at), shortest, longest)) return word_at(at);
  }
  for (const auto& [least, most] : {std::pair{shortest, longest}, {1, 1 << 20}})
    for (std::int64_t i = 0; i < count; ++i)
      if (const std::int64_t word = word_at((at + i) % count); is_usable(word, least, most))
        return word;
  return word_at(at);  // SyntheticSource keeps no face that spells none of the words
}

std::string TextChooser::random_word(std::int64_t length) {
  const auto& letters = coverage_.letters();
  std::string out;
  for (std::int64_t i = 0; i < length && !letters.empty(); ++i)
    out += letters[random_.below(letters.size())];
  return out;
}

std::string TextChooser::character() {
  if (random_.uniform() < options_.random_share)
    if (const std::string letter = random_word(1); !letter.empty()) return letter;
  const std::string_view text =
      corpus_.word(find(1, 1 << 20, random_.uniform() < options_.distinct_share));
  std::vector<std::string_view> characters;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint point = code_point(text, at);
    characters.push_back(text.substr(at, point.bytes));
    at += point.bytes;
  }
  return std::string(characters[random_.below(characters.size())]);
}

std::string TextChooser::word(std::int64_t shortest, std::int64_t longest) {
  if (random_.uniform() < options_.random_share) {
    const std::int64_t most = std::min<std::int64_t>(std::max(longest, shortest), shortest + 7);
    const auto spread = static_cast<std::uint64_t>(most - shortest + 1);
    const std::string out =
        random_word(shortest + static_cast<std::int64_t>(random_.below(spread)));
    if (!out.empty()) return out;
  }
  const bool distinct = random_.uniform() < options_.distinct_share;
  std::int64_t at = find(shortest, longest, distinct);
  std::string out(corpus_.word(at));
  // A run of CJK is as many characters as chance will have.
  for (std::int64_t length = corpus_.length(at);
       ++at < corpus_.words() && corpus_.is_glued(at) && random_.uniform() < 0.7;) {
    length += corpus_.length(at);
    if (length > longest || !coverage_.spells(corpus_.word(at))) break;
    out += corpus_.word(at);
  }
  return out;
}

void TextChooser::start() { at_ = find(1, 1 << 20, false); }

bool TextChooser::at_paragraph() const { return corpus_.begins_paragraph(at_); }

/// Moves to the next word that the face can spell and that fits a line.
void TextChooser::skip_unusable(std::int64_t longest) {
  for (std::int64_t i = 0; i < corpus_.words(); ++i) {
    if (is_usable(at_, 1, longest)) return;
    at_ = (at_ + 1) % corpus_.words();
  }
}

std::string TextChooser::next_line(std::int64_t longest) {
  std::string out;
  for (std::int64_t length = 0;;) {
    skip_unusable(longest);
    if (length > 0 && at_paragraph()) return out;
    std::string word(corpus_.word(at_));
    if (options_.random_share > 0 && random_.uniform() < options_.random_share)
      if (std::string other = random_word(corpus_.length(at_)); !other.empty())
        word = std::move(other);
    const bool glued = length > 0 && corpus_.is_glued(at_);
    const std::int64_t longer = length + (length > 0 && !glued) + corpus_.length(at_);
    if (length > 0 && longer > longest) return out;
    if (length > 0 && !glued) out += ' ';
    out += word;
    length = longer;
    at_ = (at_ + 1) % corpus_.words();
  }
}

}  // namespace lectern::detail
