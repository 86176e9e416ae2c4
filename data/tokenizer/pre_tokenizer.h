// The pre-tokenizer of a tokenizer.json: cuts text into the pieces that byte pair encoding merges
// within. Each step takes every piece of the step before and cuts it further.
#pragma once

#include "data/tokenizer/regex.h"

#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// What becomes of the matches that a piece is cut at.
enum class SplitBehavior {
  isolated,              // a match is a piece of its own
  removed,               // matches are dropped
  merged_with_previous,  // a match ends the piece before it
  merged_with_next,      // a match begins the piece after it
  contiguous             // neighbouring matches make one piece
};

struct PreTokenizerStep {
  bool add_prefix_space = false;  // to each piece that does not begin with a space, before the cut
  std::optional<Regex> pattern;   // absent: no cut
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;  // what lies between the matches counts as the match
};

class PreTokenizer {
 public:
  /// Working memory; `pieces` is the result, valid until the next split() and while the text lives.
  struct Scratch {
    struct Span {
      std::size_t begin, end;
      bool match;
    };
    std::vector<std::string_view> pieces, cut;
    std::vector<Span> spans;
    std::deque<std::string> prefixed;
    RegexScratch regex;
  };

  explicit PreTokenizer(std::vector<PreTokenizerStep> steps) : steps_(std::move(steps)) {}
  /// Cuts `text` (well-formed UTF-8) into scratch.pieces, none of them empty.
  void split(std::string_view text, Scratch& scratch) const;

 private:
  std::vector<PreTokenizerStep> steps_;
};

/// The cut that GPT-2 made and that ByteLevel(use_regex=true) makes.
extern const std::string_view kByteLevelPattern;

}  // namespace lectern
