// linear_cross_entropy with gradients; formula and memory in core/ops/linear_cross_entropy.h.
#pragma once

#include "autograd/variable.h"
#include "core/ops/cross_entropy.h"

#include <cstdint>

namespace lectern {

struct LinearCrossEntropyResult {
  Variable loss_sum;       ///< scalar: sum, not mean, over the labelled rows
  std::int64_t count = 0;  ///< labelled rows; divide by it (or by the count of all ranks)
};

/// hidden [N, C], weight [V, C], labels i32 [N] (-100 = ignored).
LinearCrossEntropyResult linear_cross_entropy(const Variable& hidden, const Variable& weight,
                                              const Tensor& labels);

}  // namespace lectern
