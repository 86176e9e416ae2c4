// swiglu: the gated activation between the two matrix products of a feed-forward layer.
//
//   y[r, i] = silu(gate_up[r, i]) * gate_up[r, I + i],   silu(x) = x * sigmoid(x)
//
// gate_up  [..., 2I] f32 or f64: I gate columns, then I up columns
// output   [..., I]  same dtype; empty when gate_up is empty
//
// Backward computes the activation again from gate_up. With s = sigmoid(gate):
//   grad_gate = grad_output * up * s * (1 + gate * (1 - s)),  grad_up = grad_output * gate * s
// Source: Shazeer 2020 (GLU variants), eq. 6 without biases.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

namespace lectern {

/// Throws ShapeError when gate_up is a scalar or its last size is odd, DTypeError unless f32/f64. A
/// strided input is copied.
Tensor swiglu(const Tensor& gate_up);

/// Gradient of gate_up, same shape. Throws ShapeError or DTypeError when grad_output is unlike the
/// forward's result.
Tensor swiglu_backward(const Tensor& grad_output, const Tensor& gate_up);

struct SwigluKernels {
  void (*forward)(const Tensor& gate_up, const Tensor& out);
  void (*backward)(const Tensor& grad_output, const Tensor& gate_up, const Tensor& grad_gate_up);
};
KernelTable<SwigluKernels>& swiglu_table();

}  // namespace lectern
