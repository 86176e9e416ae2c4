// experts with gradients; formulas, shapes and memory in core/ops/experts.h.
#pragma once

#include "autograd/variable.h"

namespace lectern {

/// x [N, C], weights [N, K], indices i32 [N, K], gate_up [E, 2I, C], down [E, C, I] -> [N, C].
/// Gradients of gate_up and down are dense: zero for experts without tokens.
Variable experts(const Variable& x, const Variable& weights, const Tensor& indices,
                 const Variable& gate_up, const Variable& down);

}  // namespace lectern
