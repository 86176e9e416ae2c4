// mixed_gemm: rows of f32 times a weight in bf16, read where it lies (a mapped checkpoint): no
// packed or widened copy of the weight is ever made.
#pragma once

#include "core/cpu/gemm.h"
#include "core/dtype.h"

#include <cstdint>

namespace lectern {

struct MixedGemmArgs {
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t ldx = 0, ldw = 0, ldy = 0;  ///< elements between stored rows
};

/// Up to this many rows of x, each enters the products as the f32 it is.
inline constexpr std::int64_t kExactRows = 8;

/// y[m, n] = x[m, k] w[n, k]^T + bias[n]; a null bias is zero. y must not overlap x.
///
/// Up to kExactRows rows the weight is widened in registers and read once: bound by memory, and a
/// row of y does not depend on the other rows. With more rows x is rounded to bf16 and gemm_bf16()
/// multiplies. Sums in f32, in an order that does not depend on the number of threads. k = 0 gives
/// the bias. Uses all threads unless called inside a parallel region.
void mixed_gemm(const MixedGemmArgs& args, const float* x, const BFloat16* w, const float* bias,
                float* y);

/// The same under the name that templates call for every dtype; `args` as for gemm(), with
/// transpose_b, without transpose_a and `accumulate`.
inline void gemm(const GemmArgs& args, const float* x, const BFloat16* w, float* y) {
  mixed_gemm(
      {.m = args.m, .n = args.n, .k = args.k, .ldx = args.lda, .ldw = args.ldb, .ldy = args.ldc}, x,
      w, nullptr, y);
}

}  // namespace lectern
