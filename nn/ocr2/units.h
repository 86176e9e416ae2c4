// The pieces of the model that a pipeline may part: vision tokenizer | encoder blocks | decoder
// blocks | head.
//
//   0                 SAM and the convolutions, for all views
//   1 .. E            encoder block i - 1; the first with the queries, the last with the encoder's
//                     norm and the projector
//   E + 1 .. E + D    decoder block i - E - 1; the first with the embeddings and the image merge
//   E + D + 1         the decoder's norm, the LM head and the loss
#pragma once

#include "autograd/ops/streams.h"
#include "nn/ocr2/config.h"

#include <cstdint>
#include <string>
#include <vector>

namespace lectern {

/// What flows from one unit to the next. Before the decoder: `global`, and `local` when there are
/// tiles, as image tokens, streams of the encoder or projected rows. In the decoder: `hidden`, its
/// streams. Where the encoder's stack was left half-way and its gains are wanted, the mixes of the
/// sub-layers so far (ForwardContext::stream_mixes; the decoder's stay there).
struct Ocr2Activation {
  Streams global, local, hidden;
  std::vector<Tensor> global_mixes{}, local_mixes{};
};

/// Units [begin, end) that one process runs.
struct Ocr2UnitRange {
  std::int64_t begin = 0, end = 0;
  bool operator==(const Ocr2UnitRange&) const = default;
};

/// What of a model lives in one process; by default all of it.
struct Ocr2Placement {
  std::vector<Ocr2UnitRange> units;  ///< of a pipeline stage; none: all
  /// The routed experts of every layer are spread over `expert_ranks`; these are those of one.
  std::int64_t expert_rank = 0, expert_ranks = 1;
};

/// E + D + 2.
std::int64_t unit_count(const Ocr2Config& config);
/// First unit of the decoder, E + 1.
std::int64_t first_decoder_unit(const Ocr2Config& config);
/// The unit whose computation reads a parameter, by its name in checkpoints. Throws ConfigError for
/// a name that belongs to no unit.
std::int64_t unit_of_parameter(const Ocr2Config& config, const std::string& name);
/// Which units have a parameter that none of the prefixes freezes.
std::vector<bool> trained_units(const Ocr2Config& config, const std::vector<std::string>& frozen);
/// What each unit costs, in no unit: weights that a row meets x rows, for one picture of the global
/// view and `text_tokens`. Rough; `lectern plan` times them.
std::vector<double> estimated_unit_costs(const Ocr2Config& config, std::int64_t text_tokens = 256);
/// "vision tokenizer", "encoder block 3", "decoder block 0", "head".
std::string unit_name(const Ocr2Config& config, std::int64_t unit);

}  // namespace lectern
