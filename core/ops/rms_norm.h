// rms_norm: root-mean-square normalisation over the last dimension.
//
//   y[r, c] = x[r, c] * inverse_rms[r] * weight[c]
//   inverse_rms[r] = 1 / sqrt(mean_c x[r, c]^2 + epsilon)
//
// x            [..., C] f32 or f64; on CUDA f32 or bf16
// weight       [C]      f32 for bf16, else the same dtype
// output       [..., C] dtype of x; empty when x is empty
// inverse_rms  [rows]   dtype of weight, rows = product of the leading sizes; kept for backward
//
// Accumulates in the dtype of weight. Gradients, with h = grad_output * weight:
//   grad_x      = inverse_rms * (h - x * inverse_rms^2 * mean_c(h * x))
//   grad_weight = sum over rows of grad_output * x * inverse_rms, in fixed chunks of rows
// Source: Zhang & Sennrich 2019, eq. 4, with the epsilon of Qwen2RMSNorm.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

namespace lectern {

struct RmsNormOutput {
  Tensor output;
  Tensor inverse_rms;
};

/// Tensors that were not asked for stay undefined.
struct RmsNormGradients {
  Tensor x;
  Tensor weight;
};

/// Throws ShapeError when x is a scalar or weight is not [C], DTypeError when the dtypes differ or
/// are not f32/f64, ConfigError when epsilon is not positive. A strided x is copied.
RmsNormOutput rms_norm(const Tensor& x, const Tensor& weight, double epsilon);

/// `inverse_rms` is the forward's. Throws ShapeError or DTypeError when grad_output is unlike x.
RmsNormGradients rms_norm_backward(const Tensor& grad_output, const Tensor& x, const Tensor& weight,
                                   const Tensor& inverse_rms, bool need_x, bool need_weight);

struct RmsNormKernels {
  void (*forward)(const Tensor& x, const Tensor& weight, double epsilon,
                  const RmsNormOutput& result);
  /// Undefined members of `gradients` are skipped; grad_weight is written, not added to.
  void (*backward)(const Tensor& grad_output, const Tensor& x, const Tensor& weight,
                   const Tensor& inverse_rms, const RmsNormGradients& gradients);
};
KernelTable<RmsNormKernels>& rms_norm_table();

}  // namespace lectern
