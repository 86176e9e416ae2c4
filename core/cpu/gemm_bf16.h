// gemm_bf16: the matrix product of bfloat16 matrices with an f32 result.
#pragma once

#include "core/cpu/gemm.h"
#include "core/dtype.h"

#include <string_view>
#include <type_traits>

namespace lectern {

/// What products of T are added up in.
template <typename T>
using SumOf = std::conditional_t<std::is_same_v<T, BFloat16>, float, T>;
constexpr DType sum_dtype(DType dtype) { return dtype == DType::bf16 ? DType::f32 : dtype; }

/// C[m, n] = op(A)[m, k] op(B)[k, n] (+ bias[n] in every row), or C += with `accumulate`. A and B
/// bfloat16, bias and C f32; layout, overlap and k = 0 as for gemm(). Products are exact in f32 and
/// added up in f32; subnormal values of A and B may count as zero. Throws Error when a bias is
/// given together with `accumulate`.
/// Uses all threads unless called inside a parallel region; the result does not depend on how many
/// there are.
void gemm_bf16(const GemmArgs& args, const BFloat16* a, const BFloat16* b, float* c,
               const float* bias = nullptr);

/// The same under the name that templates call for every dtype.
inline void gemm(const GemmArgs& args, const BFloat16* a, const BFloat16* b, float* c) {
  gemm_bf16(args, a, b, c);
}
inline void gemm_bias(const GemmArgs& args, const BFloat16* a, const BFloat16* b, const float* bias,
                      float* c) {
  gemm_bf16(args, a, b, c, bias);
}

/// Calls `f.template operator()<T>()` with T = float, double or BFloat16: the dtypes that matrix
/// products take. Throws DTypeError for anything else, naming `operation`.
template <typename F>
decltype(auto) dispatch_operand(DType dtype, std::string_view operation, F&& f) {
  if (dtype == DType::bf16) return f.template operator()<BFloat16>();
  return dispatch_floating(dtype, operation, f);
}

/// How this build multiplies bfloat16 numbers: "avx512_bf16", or "f32" where the compiler was not
/// told of that instruction set: the same products through f32 arithmetic, at its speed.
std::string_view bf16_arithmetic();

}  // namespace lectern
