// One element of the router; formulas in core/ops/router.h. CPU and CUDA kernels share them.
#pragma once

#include "core/host_device.h"

namespace lectern::router_math {

/// Gradient of a logit: `grad` reaches its probability, `mean` is the row's sum of grad *
/// probability.
template <typename T>
LECTERN_HOST_DEVICE inline T grad_logit(T probability, T grad, T mean, T direct) {
  return probability * (grad - mean) + direct;
}

/// True when expert a stands before expert b in the choice of a token.
template <typename T>
LECTERN_HOST_DEVICE inline bool is_before(T value_a, int a, T value_b, int b) {
  return value_a > value_b || (value_a == value_b && a < b);
}

}  // namespace lectern::router_math
