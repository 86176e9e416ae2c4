// What goes into a model and what comes out of it, the same for every family.
#pragma once

#include "autograd/ops/streams.h"
#include "autograd/variable.h"

#include <cstdint>
#include <vector>

namespace lectern {

/// Rows of decoder input that stand for the pictures of a batch, after the projector.
struct MediaRows {
  Variable global;  ///< [pictures, n_global, C]
  Variable local;   ///< [tiles, n_local, C], tiles in order of their pictures; undefined without
};

/// One batch as the decoder sees it. Pictures stand in the flattened ids in their order.
struct ModelInput {
  Tensor input_ids;           ///< i32 [B, T]; image_token_id marks the rows that media rows replace
  Tensor labels;              ///< i32 [B, T], -100 ignored; undefined when only decoding
  Tensor positions;           ///< i32 [B, T] rotary positions; undefined: 0..T-1
  Tensor segment_start;       ///< i32 [B, T] packed samples; undefined: one sample a row
  Tensor pixel_values;        ///< f32 [pictures, 3, S, S]; undefined when media rows are given
  Tensor pixel_values_local;  ///< f32 [tiles, 3, s, s]; undefined without tiles
  std::vector<std::int64_t> num_local_patches;  ///< tiles of each picture
};

/// Sum of the losses of all trained tokens, and their number.
struct ModelLoss {
  Variable loss_sum;  ///< scalar
  std::int64_t count = 0;
};

/// What flows from one unit to the next (model_config.h). Before the decoder: `global`, and `local`
/// when there are tiles, as image tokens, streams of the encoder or projected rows. In the decoder:
/// `hidden`, its streams. Where the encoder's stack was left half-way and its gains are wanted, the
/// mixes of the sub-layers so far (ForwardContext::stream_mixes; the decoder's stay there).
struct Activation {
  Streams global, local, hidden;
  std::vector<Tensor> global_mixes{}, local_mixes{};
};

/// Units [begin, end) that one process runs.
struct UnitRange {
  std::int64_t begin = 0, end = 0;
  bool operator==(const UnitRange&) const = default;
};

/// What of a model lives in one process; by default all of it.
struct ModelPlacement {
  std::vector<UnitRange> units;  ///< of a pipeline stage; none: all
  /// The routed experts of every layer are spread over `expert_ranks`; these are those of one.
  std::int64_t expert_rank = 0, expert_ranks = 1;
};

}  // namespace lectern
