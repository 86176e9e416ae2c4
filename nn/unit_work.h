// Numbers that families count their units' work with (UnitSizes, model_config.h).
#pragma once

#include "nn/blocks/residual_config.h"

#include <cstdint>

namespace lectern {

inline constexpr double kActivationBytes = 4;  ///< f32 in every dtype of compute

inline double to_double(std::int64_t count) { return static_cast<double>(count); }

/// Bytes that a forward pass of a residual moves for a row, in both of a block's sub-layers: reads
/// of (3n + 1) C and writes of (n + 1) C (arXiv 2512.24880, table 2, fused).
inline double stream_row_bytes(const ResidualConfig& residual, double width) {
  if (residual.is_plain()) return 0;
  const double n = static_cast<double>(residual.streams);
  return 2 * (4 * n + 2) * width * kActivationBytes;
}

inline double streams_of(const ResidualConfig& residual) {
  return residual.is_plain() ? 1 : static_cast<double>(residual.streams);
}

/// Numbers that backward of a transformer block needs for a row, without recomputation: the outputs
/// of its operations. `queries`, `keys`: columns of the projections; `hidden`: of the MLP.
inline double kept_numbers(double width, double queries, double keys, double hidden) {
  return 4 * width + 2 * (queries + 2 * keys) + queries + 3 * hidden;
}

}  // namespace lectern
