// Rounding between f32 and bfloat16, one element and one row; between f32 and half precision, one
// element.
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

/// Nearest half (IEEE: 5 bits of exponent, 10 of fraction), ties to even; what is 65520 or more
/// becomes infinity, NaN stays NaN.
inline std::uint16_t half_bits(float value) {
  const auto u = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    // Under 2^-14 halves are the multiples of 2^-24, and so are floats from 0.5 to 1: the addition
    // rounds as it must, and leaves the multiple in the fraction.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
  }
  constexpr std::uint32_t kBias = (127 - 15) << 23;
  const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<std::uint16_t>(sign | (rounded - kBias) >> 13);
}

/// The f32 that equals a half.
inline float half_to_f32(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fu, fraction = half & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24
    const float value = static_cast<float>(fraction) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  constexpr std::uint32_t kBias = 127 - 15;
  const std::uint32_t wide = exponent == 0x1fu ? 0xffu : exponent + kBias;  // infinity and NaN stay
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

}  // namespace lectern::convert_math
