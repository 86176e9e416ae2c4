// Activations and their derivatives, one number at a time; the kernels of elementwise and swiglu
// share them. Formulas: core/ops/elementwise.h.
#pragma once

#include "core/cpu/vector_math.h"
#include "core/host_device.h"

#include <numbers>

namespace lectern::activation {

template <typename T>
LECTERN_HOST_DEVICE inline T sigmoid(T x) {
  return fast_sigmoid(x);
}

template <typename T>
LECTERN_HOST_DEVICE inline T silu(T x) {
  return x * sigmoid(x);
}

template <typename T>
LECTERN_HOST_DEVICE inline T silu_derivative(T x) {
  const T s = sigmoid(x);
  return s * (T(1) + x * (T(1) - s));
}

/// Probability that a standard normal is below x.
template <typename T>
LECTERN_HOST_DEVICE inline T normal_cdf(T x) {
  return T(0.5) * (T(1) + fast_erf(x * (std::numbers::sqrt2_v<T> / T(2))));
}

template <typename T>
LECTERN_HOST_DEVICE inline T gelu(T x) {
  return x * normal_cdf(x);
}

template <typename T>
LECTERN_HOST_DEVICE inline T gelu_derivative(T x) {
  const T density =
      std::numbers::inv_sqrtpi_v<T> / std::numbers::sqrt2_v<T> * fast_exp(T(-0.5) * x * x);
  return normal_cdf(x) + x * density;
}

}  // namespace lectern::activation
