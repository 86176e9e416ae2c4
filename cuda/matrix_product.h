// The matrix product on device memory that linear, matmul, router and linear_cross_entropy are made
// of: cuBLASLt (cuda/vendor/matrix_product.cpp), in emulation the CPU's gemm.
#pragma once

#include "core/tensor.h"

#include <cstdint>

namespace lectern::cuda {

struct MatrixProduct {
  bool transpose_a = false, transpose_b = false;
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t lda = 0, ldb = 0, ldc = 0;  ///< elements between stored rows
  bool accumulate = false;                 ///< C += instead of C =
  Tensor bias{};                           ///< optional f32 [n], added to every row
};

/// C[m, n] = op(A)[m, k] op(B)[k, n] (+ bias), all row-major, read from the first element of each
/// tensor; A is stored [m, k], or [k, m] with transpose_a, and B [k, n] or [n, k] with transpose_b.
/// A and B both f32 or both bf16, C f32, or bf16 for bf16 operands; sums in f32 (f32 operands are
/// not rounded to TF32). k = 0 gives zeros (plus bias).
void matrix_product(const MatrixProduct& product, const Tensor& a, const Tensor& b,
                    const Tensor& c);

}  // namespace lectern::cuda
