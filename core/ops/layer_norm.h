// layer_norm: normalisation to mean 0 and variance 1 over the last dimension, then an affine map.
//
//   y[r, c] = (x[r, c] - mean[r]) * inverse_deviation[r] * weight[c] + bias[c]
//   inverse_deviation[r] = 1 / sqrt(variance[r] + epsilon), variance = mean_c (x - mean)^2
//
// x                   [..., C] f32 or f64; on CUDA f32 or bf16
// weight, bias        [C]      f32 for bf16, else the same dtype
// output              [..., C] dtype of x; empty when x is empty
// mean                [rows]   dtype of weight, rows = product of the leading sizes; for backward
// inverse_deviation   [rows]   dtype of weight; kept for backward
//
// Accumulates in the dtype of weight; the second pass for the variance also corrects the mean's
// rounding. Gradients, with n = (x - mean) *
// inverse_deviation and h = grad_output * weight:
//   grad_x      = inverse_deviation * (h - mean_c(h) - n * mean_c(h * n))
//   grad_weight = sum over rows of grad_output * n, grad_bias = sum over rows of grad_output
// Source: Ba, Kiros & Hinton 2016, eq. 3; epsilon inside the root as torch.nn.LayerNorm.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

namespace lectern {

struct LayerNormOutput {
  Tensor output;
  Tensor mean;
  Tensor inverse_deviation;
};

/// Tensors that were not asked for stay undefined.
struct LayerNormGradients {
  Tensor x;
  Tensor weight;
  Tensor bias;
};

struct LayerNormSaved {
  Tensor x;
  Tensor weight;
  Tensor mean;
  Tensor inverse_deviation;
};

/// Throws ShapeError when x is a scalar or weight or bias is not [C], DTypeError when the dtypes
/// differ or are not f32/f64, ConfigError when epsilon is not positive. A strided x is copied.
LayerNormOutput layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                           double epsilon);

/// Throws ShapeError or DTypeError when grad_output is unlike x. `need_affine` asks for the
/// gradients of weight and bias together: one pass makes both.
LayerNormGradients layer_norm_backward(const Tensor& grad_output, const LayerNormSaved& saved,
                                       bool need_x, bool need_affine);

struct LayerNormKernels {
  void (*forward)(const Tensor& x, const Tensor& weight, const Tensor& bias, double epsilon,
                  const LayerNormOutput& result);
  /// Undefined members of `gradients` are skipped; weight and bias come together.
  void (*backward)(const Tensor& grad_output, const LayerNormSaved& saved,
                   const LayerNormGradients& gradients);
};
KernelTable<LayerNormKernels>& layer_norm_table();

}  // namespace lectern
