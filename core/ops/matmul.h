// matmul: C = op(A) op(B) for two matrices.
//
//   a [M, K] (or [K, M] with transpose_a), b [K, N] (or [N, K] with transpose_b)  f32 or f64
//   C [M, N]  same dtype, contiguous
// Gradients are products of the same kind: grad_A = grad_C op(B)^T, grad_B = op(A)^T grad_C,
// transposed back where a flag is set. Saved for backward: a and b, as needed.
// Sums in the dtype of a; the result does not depend on the number of threads. K = 0 gives zeros.
// Throws ShapeError, DTypeError.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

namespace lectern {

struct MatmulArgs {
  bool transpose_a = false, transpose_b = false;
};

Tensor matmul(const Tensor& a, const Tensor& b, const MatmulArgs& args = {});

/// Contiguous a and b, out [M, N] with M, N >= 1.
struct MatmulKernels {
  void (*forward)(const Tensor& a, const Tensor& b, const MatmulArgs& args, const Tensor& out);
};
KernelTable<MatmulKernels>& matmul_table();

}  // namespace lectern
