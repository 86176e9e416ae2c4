// gemm: the matrix product on raw pointers that every dense kernel is built from.
#pragma once

#include <cstdint>

namespace lectern {

struct GemmArgs {
  bool transpose_a = false, transpose_b = false;
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t lda = 0, ldb = 0, ldc = 0;
  bool accumulate = false;
};

/// C[m, n] = op(A)[m, k] op(B)[k, n], or C += with `accumulate`. T is float or double.
///
/// All matrices are row-major; lda, ldb, ldc are elements between stored rows, so A is stored
/// [m, k], or [k, m] with transpose_a, and B [k, n], or [n, k] with transpose_b. C must not overlap
/// A or B. k = 0 gives zeros (or leaves C with `accumulate`).
/// Sums in T. Uses all threads unless called inside a parallel region; the result does not depend
/// on how many there are.
template <typename T>
void gemm(const GemmArgs& args, const T* a, const T* b, T* c);

/// As gemm() without `accumulate`, with bias[n] added to every row of C in the same pass.
template <typename T>
void gemm_bias(const GemmArgs& args, const T* a, const T* b, const T* bias, T* c);

}  // namespace lectern
