#include "data/tokenizer/added_tokens.h"

#include "data/text/utf8.h"

#include <algorithm>

namespace lectern {

void AddedTokenMatcher::add(std::string_view pattern, const AddedToken& token) {
  if (pattern.empty()) return;
  std::int32_t at = -1;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const auto byte = static_cast<unsigned char>(pattern[i]);
    std::int32_t next = i == 0 ? root_[byte] : nodes_[at].child;
    while (next >= 0 && nodes_[next].byte != byte) next = nodes_[next].sibling;
    if (next < 0) {
      next = static_cast<std::int32_t>(nodes_.size());
      nodes_.push_back({byte, -1, i == 0 ? -1 : nodes_[at].child, -1});
      (i == 0 ? root_[byte] : nodes_[at].child) = next;
    }
    at = next;
  }
  if (nodes_[at].token >= 0) return;
  nodes_[at].token = static_cast<std::int32_t>(tokens_.size());
  tokens_.push_back(token);
}

std::int32_t AddedTokenMatcher::longest_at(std::string_view text, std::size_t at,
                                           std::size_t& length) const {
  std::int32_t best = -1;
  std::int32_t node = root_[static_cast<unsigned char>(text[at])];
  for (std::size_t i = at; node >= 0;) {
    ++i;
    if (nodes_[node].token >= 0) {
      best = nodes_[node].token;
      length = i - at;
    }
    if (i == text.size()) break;
    const auto byte = static_cast<unsigned char>(text[i]);
    node = nodes_[node].child;
    while (node >= 0 && nodes_[node].byte != byte) node = nodes_[node].sibling;
  }
  return best;
}

void AddedTokenMatcher::cut(std::string_view text, std::vector<Piece>& pieces) const {
  std::size_t covered = 0;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t length = 0;
    const std::int32_t found = longest_at(text, at, length);
    if (found < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[found];
    std::size_t begin = at, end = at + length;
    at = end;
    if (token.single_word) {
      const bool word_before =
          begin > 0 && is_word_character(code_point(text, previous_code_point(text, begin)).value);
      if (word_before || (end < text.size() && is_word_character(code_point(text, end).value)))
        continue;
    }
    while (token.left_strip && begin > covered) {
      const std::size_t previous = previous_code_point(text, begin);
      if (!is_white_space(code_point(text, previous).value)) break;
      begin = std::max(previous, covered);
    }
    while (token.right_strip && end < text.size()) {
      const CodePoint next = code_point(text, end);
      if (!is_white_space(next.value)) break;
      end += next.bytes;
    }
    if (begin > covered) pieces.push_back({text.substr(covered, begin - covered), nullptr});
    pieces.push_back({text.substr(begin, end - begin), &token});
    covered = at = end;
  }
  if (covered < text.size()) pieces.push_back({text.substr(covered), nullptr});
}

}  // namespace lectern
