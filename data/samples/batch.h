// Samples laid side by side as tensors: one row a sample, or one row packed with several.
//
// One sample, positions p = 0 ..:  [begin] image_token x n   prompt   response   [end]
//   labels (not shifted; the loss shifts):  -100      -100    -100   response     end
#pragma once

#include "core/tensor.h"
#include "data/samples/sample.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace lectern {

inline constexpr std::int32_t kIgnoredLabel = -100;

struct Batch {
  Tensor input_ids;      // i32 [rows, tokens]
  Tensor labels;         // i32 [rows, tokens], kIgnoredLabel where nothing is learnt
  Tensor positions;      // i32 [rows, tokens], from 0 in each sample
  Tensor segment_start;  // i32 [rows, tokens], column where the token's sample begins

  // Images in the order of their placeholders. Those whose pixels were left out (the encoder's
  // output is cached) have no views in the pixel tensors.
  Tensor pixel_values;                   // f32 [images with pixels, 3, S, S]; undefined when none
  Tensor pixel_values_local;             // f32 [their tiles, 3, t, t]; undefined when none
  std::vector<int> num_local_patches;    // [images]
  std::vector<std::uint8_t> has_pixels;  // [images]
  std::vector<std::string> image_keys;   // [images] Sample::key: the same key has the same image

  std::vector<std::string> sample_keys;  // [samples]
  std::int64_t samples = 0;
  std::int64_t trained_tokens = 0;  // labels that are not kIgnoredLabel
};

struct BatchOptions {
  std::int32_t pad_token = 2;
  /// 0: one row a sample, padded on the right to the longest (labels kIgnoredLabel, positions going
  /// on). Else one row with all samples one after the other, at most this many tokens.
  std::int64_t pack_tokens = 0;
};

/// Samples without pixels (make(..., pixels = false)) keep their placeholders. Throws ShapeError
/// when there is no sample, when a pack is too long, and when views differ in size.
Batch make_batch(std::span<const Sample> samples, const SampleOptions& sample_options,
                 const BatchOptions& options);

}  // namespace lectern
