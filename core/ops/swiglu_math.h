// One element of swiglu; formulas in core/ops/swiglu.h. CPU and CUDA kernels share them.
#pragma once

#include "core/ops/activation_math.h"

namespace lectern::swiglu_math {

template <typename T>
LECTERN_HOST_DEVICE inline T output(T gate, T up) {
  return activation::silu(gate) * up;
}

template <typename T>
struct Gradients {
  T gate, up;
};

template <typename T>
LECTERN_HOST_DEVICE inline Gradients<T> gradients(T grad, T gate, T up) {
  const T s = activation::sigmoid(gate);
  return {grad * up * s * (T(1) + gate * (T(1) - s)), grad * gate * s};
}

}  // namespace lectern::swiglu_math
