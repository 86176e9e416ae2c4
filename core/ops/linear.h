// linear: y = x W^T + b, the layer that nearly all of the work is in.
//
//   x      [..., K]  f32, f64 or bf16
//   weight [N, K]    same dtype, or bf16 with f32 x (forward only, core/cpu/mixed_gemm.h);
//   contiguous, or
//                    rows of a contiguous matrix (unit stride along K)
//   bias   [N]       f32 for bf16, else the dtype of x; optional
//   y      [..., N]  f32 for bf16, else the dtype of x; contiguous
// Gradients: grad_x = grad_y W,  grad_weight = grad_y^T x,  grad_bias = sum of grad_y over its
// rows. Saved for backward: x (if weight needs a gradient), weight (if x does). Gradients of
// bf16 operands (grad_y too is bf16 then) are f32. Sums in the dtype of y, in an order that does
// not depend on the number of threads. Empty x gives empty y; K = 0 gives the bias. Throws
// ShapeError, DTypeError.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

namespace lectern {

/// Whether a weight will be used again before it changes. For `constant` ones the f32 CPU kernel
/// multiplies with oneDNN's packed layout, and keeps the packed copy from the second such use of
/// one version on: worth its memory where few rows meet the weight many times. The copy lives as
/// long as the weight's storage, is replaced when Storage::version() moves on, and all copies
/// together are held to a quarter of the machine's memory; where none is kept one is made for each
/// use, so that the bits are those of the second use in any case.
enum class WeightUse { changing, constant };

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
              WeightUse use = WeightUse::changing);

/// [..., N], [N, K] -> [..., K]
Tensor linear_grad_x(const Tensor& grad_y, const Tensor& weight);

/// [..., N], [..., K] -> [N, K]
Tensor linear_grad_weight(const Tensor& grad_y, const Tensor& x);

/// sum [N, K] += grad_y^T x; `sum` contiguous.
void linear_accumulate_grad_weight(const Tensor& grad_y, const Tensor& x, const Tensor& sum);

/// [..., N] -> [N]
Tensor linear_grad_bias(const Tensor& grad_y);

/// All take x and grad_y as contiguous matrices [M, K] and [M, N], M, N >= 1, and write `out`
/// whole.
struct LinearKernels {
  void (*forward)(const Tensor& x, const Tensor& weight, const Tensor& bias, WeightUse use,
                  const Tensor& y);
  void (*grad_x)(const Tensor& grad_y, const Tensor& weight, const Tensor& out);
  void (*grad_weight)(const Tensor& grad_y, const Tensor& x, bool accumulate, const Tensor& out);
  void (*grad_bias)(const Tensor& grad_y, const Tensor& out);
};
KernelTable<LinearKernels>& linear_table();

/// Bytes held by packed copies of weights in this process.
std::size_t packed_weight_bytes();

}  // namespace lectern
