// interpolate: resampling along one dimension with a few weights an output.
//
//   y[.., o, ..] = sum_k weight[o][k] * x[.., first[o] + k, ..]
//
// Both rules map output o to input position (o + 1/2) * input / output - 1/2 (align_corners=False).
//   bicubic  cubic kernel a = -1/2, antialiased: stretched by the scale when shrinking, weights of
//            the taps inside the image normalised to 1. Source: Pillow's resample, as
//            torch.nn.functional.interpolate(mode="bicubic", antialias=True).
//   linear   two taps, positions under 0 clamped. Source: torch interpolate(mode="linear").
// Two dimensions are resampled one after the other; the gradient is the transposed matrix.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

#include <cstdint>
#include <vector>

namespace lectern {

/// A sparse matrix [output, input] whose rows each have one run of non-zero weights.
struct ResampleWeights {
  std::int64_t input = 0;
  std::int64_t output = 0;
  std::vector<std::int64_t> first;  ///< [output] first input of the row
  std::vector<std::int64_t> start;  ///< [output + 1] where the row's weights start in `weight`
  std::vector<double> weight;
};

/// Throw ShapeError unless both sizes are 1 or more.
ResampleWeights bicubic_weights(std::int64_t input, std::int64_t output);
ResampleWeights linear_weights(std::int64_t input, std::int64_t output);
ResampleWeights transpose(const ResampleWeights& weights);

/// x [..., weights.input, ...] f32 or f64 -> [..., weights.output, ...] along `dim` (negative: from
/// the end). Accumulates in x's dtype, taps in ascending order. Throws ShapeError when that size is
/// not weights.input, DTypeError for other dtypes. A strided x is copied.
Tensor resample(const Tensor& x, int dim, const ResampleWeights& weights);

struct InterpolateKernels {
  void (*resample)(const Tensor& x, int dim, const ResampleWeights& weights, const Tensor& out);
};
KernelTable<InterpolateKernels>& interpolate_table();

}  // namespace lectern
