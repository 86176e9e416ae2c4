// A picture with an answer, as somebody has it, as a record of a shard.
#pragma once

#include "data/shards/shard.h"
#include "data/tokenizer/tokenizer.h"

#include <cstdint>
#include <string>
#include <vector>

namespace lectern {

struct Pair {
  std::string id;        // unique in a set of shards
  std::string document;  // group that splits never separate
  std::string source;    // file that it comes from
  std::string kind = "pair";
  std::vector<std::uint8_t> picture;  // PNG or JPEG; empty: text alone
  std::string prompt;                 // "": the reader's own; `<image>`, if there, comes first
  std::string answer;
  std::vector<LabelledBox> boxes;  // pixels of the picture
};

/// The pair with its tokens and the picture's size. Throws ConfigError naming the pair and the
/// field when the answer is empty, an `<image>` stands in it or in the middle of the prompt, or a
/// text is not UTF-8; IoError naming the pair when the picture cannot be decoded.
ShardPage pair_record(Pair pair, const Tokenizer& tokenizer);

}  // namespace lectern
