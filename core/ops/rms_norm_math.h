// One element of rms_norm; formulas in core/ops/rms_norm.h. CPU and CUDA kernels share them.
#pragma once

#include "core/host_device.h"

#include <cmath>

namespace lectern::rms_norm_math {

/// From the sum of a row's squares.
template <typename T>
LECTERN_HOST_DEVICE inline T inverse_rms(T squares, T columns, T epsilon) {
  return T(1) / std::sqrt(squares / columns + epsilon);
}

template <typename T>
LECTERN_HOST_DEVICE inline T output(T x, T inverse_rms, T weight) {
  return x * inverse_rms * weight;
}

/// What grad_x loses along x, from dot = sum of grad * weight * x.
template <typename T>
LECTERN_HOST_DEVICE inline T pull(T dot, T inverse_rms, T columns) {
  return inverse_rms * inverse_rms * dot / columns;
}

template <typename T>
LECTERN_HOST_DEVICE inline T grad_x(T grad, T x, T weight, T inverse_rms, T pull) {
  return inverse_rms * (grad * weight - x * pull);
}

}  // namespace lectern::rms_norm_math
