// Added tokens: strings that are cut out of the text as whole tokens before anything else.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool special = false;      // dropped by decode(skip_special)
  bool normalized = false;   // looked for in the normalized text rather than in the raw text
  bool single_word = false;  // only where no word character touches it
  bool left_strip = false;   // takes the white space before it along
  bool right_strip = false;  // takes the white space after it along
};

/// Finds added tokens in a text: at each place the longest one, from left to right.
class AddedTokenMatcher {
 public:
  struct Piece {
    std::string_view text;
    const AddedToken* token;  // null: ordinary text
  };
  AddedTokenMatcher() { root_.fill(-1); }
  /// `pattern` is the token's content, normalized where the token asks for it; an empty pattern
  /// matches nothing. Of two equal patterns the first counts.
  void add(std::string_view pattern, const AddedToken& token);
  /// Appends the pieces that `text` falls into, none of them empty.
  void cut(std::string_view text, std::vector<Piece>& pieces) const;
  bool empty() const { return tokens_.empty(); }

 private:
  struct Node {
    unsigned char byte;
    std::int32_t child = -1, sibling = -1, token = -1;
  };
  std::int32_t longest_at(std::string_view text, std::size_t at, std::size_t& length) const;

  std::array<std::int32_t, 256> root_;
  std::vector<Node> nodes_;
  std::vector<AddedToken> tokens_;
};

}  // namespace lectern
