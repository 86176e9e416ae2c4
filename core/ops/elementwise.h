// elementwise: sums, products and activations, one number at a time.
//
//   add(a, b)       a + b, where b may lack leading dimensions of a
//   multiply(a, b)  a * b, same shape
//   scale(x, s)     x * s
//   gelu(x)         x * Phi(x) = x/2 * (1 + erf(x / sqrt(2))): the exact form, not tanh
//   silu(x)         x * sigmoid(x)
//
// All tensors f32 or f64, inputs of one dtype; results contiguous, in the shape of the first input.
// A strided input is copied first. Empty in, empty out.
// Gradients: gelu' = Phi(x) + x * phi(x); silu' = s * (1 + x * (1 - s)) with s = sigmoid(x); both
// are computed again from x. Everything throws ShapeError on unlike shapes and DTypeError on unlike
// or non-floating dtypes.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

namespace lectern {

/// True when `small`, after its leading ones are dropped, is a suffix of `large`: the broadcasts
/// that add() knows ([C], [1, h, w, C] onto [n, h, w, C]).
bool is_suffix(const Shape& small, const Shape& large);

/// b's shape must be a suffix of a's (is_suffix).
Tensor add(const Tensor& a, const Tensor& b);
Tensor multiply(const Tensor& a, const Tensor& b);
Tensor scale(const Tensor& x, double factor);
Tensor gelu(const Tensor& x);
Tensor silu(const Tensor& x);

/// grad_output * gelu'(x)
Tensor gelu_backward(const Tensor& grad_output, const Tensor& x);
/// grad_output * silu'(x)
Tensor silu_backward(const Tensor& grad_output, const Tensor& x);

struct ElementwiseKernels {
  void (*add)(const Tensor& a, const Tensor& b, const Tensor& out);
  void (*multiply)(const Tensor& a, const Tensor& b, const Tensor& out);
  void (*scale)(const Tensor& x, double factor, const Tensor& out);
  void (*gelu)(const Tensor& x, const Tensor& out);
  void (*silu)(const Tensor& x, const Tensor& out);
  void (*gelu_backward)(const Tensor& grad_output, const Tensor& x, const Tensor& grad_x);
  void (*silu_backward)(const Tensor& grad_output, const Tensor& x, const Tensor& grad_x);
};
KernelTable<ElementwiseKernels>& elementwise_table();

}  // namespace lectern
