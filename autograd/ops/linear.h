// linear with gradients; see core/ops/linear.h.
#pragma once

#include "autograd/variable.h"

namespace lectern {

/// y[..., N] = x[..., K] weight[N, K]^T + bias[N]. While gradients are off, weights are taken to be
/// constant (WeightUse), so whoever writes to one in place must call Tensor::mark_modified().
Variable linear(const Variable& x, const Variable& weight, const Variable& bias = {});

}  // namespace lectern
