// conv2d: two-dimensional convolution (cross-correlation), channels last.
//
//   y[n, i, j, o] = bias[o] + sum over ky, kx, c of
//                   x[n, i s + ky - p, j s + kx - p, c] weight[o, c, ky, kx]
//   x      [N, H, W, C]    f32, f64 or bf16; outside the image it is zero
//   weight [O, C, kh, kw]  same dtype, the layout of checkpoints
//   bias   [O]             f32 for bf16, else the same dtype; optional
//   y      [N, H', W', O]  f32 for bf16, else the same dtype; contiguous; H' = floor((H + 2 p - kh)
//   / s) + 1, W' likewise
// with stride s and padding p. Saved for backward: x (if weight needs a gradient), weight (if x
// does); grad_bias is linear_grad_bias(grad_y).
// Gradients of bf16 operands (grad_y too is bf16 then) are f32. Sums in the dtype of y, in an order
// that does not depend on the number of threads. 1 x 1 at stride 1 without padding is linear(). N =
// 0 gives empty y. Throws ShapeError, DTypeError.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

namespace lectern {

struct Conv2dArgs {
  int stride = 1;   ///< both directions, >= 1
  int padding = 0;  ///< zeros on every side, >= 0
};

Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
              const Conv2dArgs& args = {});

/// [N, H', W', O], [O, C, kh, kw] -> x_shape = [N, H, W, C]
Tensor conv2d_grad_x(const Tensor& grad_y, const Tensor& weight, const Shape& x_shape,
                     const Conv2dArgs& args = {});

/// [N, H', W', O], [N, H, W, C] -> weight_shape = [O, C, kh, kw]
Tensor conv2d_grad_weight(const Tensor& grad_y, const Tensor& x, const Shape& weight_shape,
                          const Conv2dArgs& args = {});

/// All take contiguous tensors of the shapes above, none of them empty, and write `out` whole.
struct Conv2dKernels {
  void (*forward)(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dArgs& args,
                  const Tensor& out);
  void (*grad_x)(const Tensor& grad_y, const Tensor& weight, const Conv2dArgs& args,
                 const Tensor& out);
  void (*grad_weight)(const Tensor& grad_y, const Tensor& x, const Conv2dArgs& args,
                      const Tensor& out);
};
KernelTable<Conv2dKernels>& conv2d_table();

}  // namespace lectern
