// A picture with an answer, as somebody has it, as a record of a shard.
#pragma once

#include "core/error.h"
#include "data/shards/shard.h"
#include "data/tokenizer/tokenizer.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace lectern {

struct Pair {
  std::string id;        // unique in a set of shards
  std::string document;  // group that splits never separate
  std::string source;    // file that it comes from
  std::string kind = "pair";
  std::vector<std::uint8_t> picture;  // PNG or JPEG; empty: text alone
  std::string prompt;                 // "": the reader's own; `<image>`, if there, comes first
  std::string answer;                 // may have places (grounding.h)
  std::vector<LabelledBox> boxes;     // pixels of the picture; those of the answer come after them
};

/// Why a pair cannot be learnt from. what() names the pair, reason() does not.
class PairError : public ConfigError {
 public:
  PairError(const std::string& pair, std::string kind, std::string reason)
      : ConfigError(fmt::format("pair \"{}\": {}", pair, reason)),
        kind_(std::move(kind)),
        reason_(std::move(reason)) {}
  /// The same words for all that are alike: "empty answer".
  const std::string& kind() const { return kind_; }
  const std::string& reason() const { return reason_; }

 private:
  std::string kind_, reason_;
};

/// The pair with its tokens, the picture's size and the boxes of the answer's places. Throws
/// PairError naming the pair and the field when the answer is empty, an `<image>` stands in it or
/// in the middle of the prompt, a text is not UTF-8, a place is malformed or has no picture, or a
/// text has a special token that belongs to the frame around it (the end token, say) or a tag that
/// the tokenizer does not have as one token; IoError naming the pair when the picture cannot be
/// decoded.
ShardPage pair_record(Pair pair, const Tokenizer& tokenizer);

}  // namespace lectern
