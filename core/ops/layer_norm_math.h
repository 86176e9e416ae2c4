// One element of layer_norm; formulas in core/ops/layer_norm.h. CPU and CUDA kernels share them.
#pragma once

#include "core/host_device.h"

#include <cmath>

namespace lectern::layer_norm_math {

template <typename T>
struct Statistics {
  T mean, inverse;
};

/// From the rough mean (sum / columns) and, of the differences from it, sum and sum of squares:
/// what the rounding of a long sum did to the mean shows as a mean of the differences (Chan, Golub
/// & LeVeque 1983, corrected two-pass algorithm).
template <typename T>
LECTERN_HOST_DEVICE inline Statistics<T> statistics(T rough, T rest, T squares, T columns,
                                                    T epsilon) {
  const T shift = rest / columns, mean = rough + shift;
  const T raw = squares / columns - shift * shift;
  const T variance = raw < T(0) ? T(0) : raw;
  return {mean, T(1) / std::sqrt(variance + epsilon)};
}

template <typename T>
LECTERN_HOST_DEVICE inline T output(T x, T mean, T inverse, T weight, T bias) {
  return (x - mean) * inverse * weight + bias;
}

template <typename T>
LECTERN_HOST_DEVICE inline T grad_x(T grad, T x, T weight, T mean, T inverse, T mean_h, T mean_hn) {
  return inverse * (grad * weight - mean_h - (x - mean) * inverse * mean_hn);
}

}  // namespace lectern::layer_norm_math
