// stream_write: a sub-layer's output goes back into the residual streams, in one pass that reads
// (n + 1) C numbers a token and writes n C.
//
//   out_i = sum_j mix_ij x_j + post_i y
//
// x     [..., n, C] f32 or f64 (CUDA: f32), n = 1..8
// mix   [..., n, n]     post [..., n]     y [..., C]     out [..., n, C]
//
// Backward: grad_y = sum_i post_i grad_out_i, grad_post_i = grad_out_i . y. The gradients of x and
// mix are not formed here: stream_read_backward takes grad_out and forms them together with its
// own, so that x is read once (its `grad_mixed`). Source: mHC, arXiv 2512.24880, eq. 3 and
// section 4.3 (F_post,res).
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

namespace lectern {

/// Throws ShapeError or DTypeError naming the tensor that does not fit x.
Tensor stream_write(const Tensor& x, const Tensor& mix, const Tensor& post, const Tensor& y);

struct StreamWriteGradients {
  Tensor y, post;
};
StreamWriteGradients stream_write_backward(const Tensor& grad_output, const Tensor& post,
                                           const Tensor& y);

struct StreamWriteKernels {
  void (*forward)(const Tensor& x, const Tensor& mix, const Tensor& post, const Tensor& y,
                  const Tensor& output);
  void (*backward)(const Tensor& grad_output, const Tensor& post, const Tensor& y,
                   const StreamWriteGradients& result);
};
KernelTable<StreamWriteKernels>& stream_write_table();

}  // namespace lectern
