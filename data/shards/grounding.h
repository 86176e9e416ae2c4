// Places in an answer: <|ref|>label<|/ref|><|det|>[[left, top, right, bottom], ...]<|/det|>, in
// thousandths of the picture's sides: 0 is the left or top edge, 999 the right or bottom one.
#pragma once

#include "data/shards/shard.h"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

inline constexpr std::int64_t kLastPlace = 999;
inline constexpr std::array<std::string_view, 4> kGroundingTags = {"<|ref|>", "<|/ref|>", "<|det|>",
                                                                   "<|/det|>"};

struct Grounding {
  std::string label;
  std::vector<std::array<std::int64_t, 4>> boxes;  // left, top, right, bottom, each 0 .. 999
};

/// The places in `text`, in order; none where it has no tag. Throws ConfigError with nothing but
/// the reason: a tag without its partner, text between </ref> and <det>, an empty label, a list
/// that is none, a number outside of 0 .. 999, left > right, top > bottom.
std::vector<Grounding> parse_groundings(std::string_view text);

/// The boxes in pixels of a picture; a label is cut to what a shard takes.
std::vector<LabelledBox> boxes_of(const std::vector<Grounding>& groundings, std::int64_t width,
                                  std::int64_t height);

}  // namespace lectern
