// Rounding between f32 and bfloat16, one element and one row.
#pragma once

#include "core/dtype.h"

#include <bit>
#include <cstdint>

namespace lectern::convert_math {

/// Nearest bfloat16, ties to even, NaN stays NaN: BFloat16(float) without a branch, so that loops
/// become vector code.
inline std::uint16_t bf16_bits(float value) {
  const auto u = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const std::uint32_t nan = (u >> 16) | 0x40u;
  return static_cast<std::uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

inline void row_to_bf16(const float* from, std::int64_t count, BFloat16* to) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) to[i].bits = bf16_bits(from[i]);
}

inline void row_to_f32(const BFloat16* from, std::int64_t count, float* to) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i)
    to[i] = std::bit_cast<float>(static_cast<std::uint32_t>(from[i].bits) << 16);
}

}  // namespace lectern::convert_math
