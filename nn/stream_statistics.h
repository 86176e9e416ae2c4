// How far the residual mappings of a stack carry a signal: what diverges first when
// hyper-connections become unstable (mHC, arXiv 2512.24880, figures 3 and 7).
#pragma once

#include "core/tensor.h"

#include <cstdint>
#include <string>
#include <vector>

namespace lectern {

/// Of one pass through one stack. M is the product of the mixes of all its sub-layers, a token
/// each.
struct StreamStatistics {
  std::string stack;
  std::int64_t tokens = 0;
  double gain_forward = 0;       ///< largest |row sum| of M, mean over tokens
  double gain_backward = 0;      ///< largest |column sum| of M, mean over tokens
  double gain_forward_min = 0;   ///< smallest |row sum| of M, of any token
  double gain_backward_min = 0;  ///< smallest |column sum| of M, of any token
  double deviation = 0;  ///< of any single mix: largest |row or column sum - 1|, or -(an entry) < 0
  double entropy = 0;  ///< of the rows of a mix: -sum p log p / log n, p = |entry| / row sum; mean
};

/// mixes: [..., n, n] of each sub-layer, first to last, f32 or f64. Empty mixes give zeros.
StreamStatistics stream_statistics(const std::string& stack, const std::vector<Tensor>& mixes);

/// Means weighted by tokens; extremes of the extremes. For micro-batches and views.
StreamStatistics combined(const StreamStatistics& a, const StreamStatistics& b);

}  // namespace lectern
