// bfloat16 in vector registers: a 32-bit lane holds a pair of numbers, the first in its low half.
// With AVX-512 BF16 each function is an instruction or two; elsewhere the same values come from
// f32 arithmetic.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace lectern {

using Bf16Pair = std::uint32_t;

/// sum + first(a) first(b) + second(a) second(b), lane by lane. Sums: vector of float, Pairs: of
/// Bf16Pair, of equal size. Subnormal numbers may count as zero.
template <typename Sums, typename Pairs>
inline __attribute__((always_inline)) Sums add_pair_products(const Sums& sum, const Pairs& a,
                                                             const Pairs& b) {
#ifdef __AVX512BF16__
  if constexpr (sizeof(Sums) == 64)
    return (Sums)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#endif
  const Pairs a_low = a << 16, b_low = b << 16, a_high = a & 0xffff0000u, b_high = b & 0xffff0000u;
  return sum + (Sums)a_low * (Sums)b_low + (Sums)a_high * (Sums)b_high;
}

/// The nearest bfloat16 of each lane, ties to even, in the low half of its lane; NaN stays NaN.
template <typename Pairs, typename Floats>
inline __attribute__((always_inline)) Pairs round_lanes(const Floats& x) {
#ifdef __AVX512BF16__
  if constexpr (sizeof(Floats) == 64)
    return (Pairs)_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)x));
#endif
  const Pairs u = (Pairs)x;
  const Pairs rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return (u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded;
}

/// Lane i: the pair of first[i] and second[i].
template <typename Pairs, typename Floats>
inline __attribute__((always_inline)) Pairs round_across(const Floats& first,
                                                         const Floats& second) {
  return round_lanes<Pairs>(first) | round_lanes<Pairs>(second) << 16;
}

/// The numbers of two vectors in their order, as pairs of neighbours.
template <typename Pairs, typename Floats>
inline __attribute__((always_inline)) Pairs round_along(const Floats& low, const Floats& high) {
#ifdef __AVX512BF16__
  if constexpr (sizeof(Floats) == 64) return (Pairs)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
#endif
  constexpr int kLanes = static_cast<int>(sizeof(Floats) / sizeof(float));
  const Pairs a = round_lanes<Pairs>(low), b = round_lanes<Pairs>(high);
  Pairs out{};
  for (int i = 0; i < kLanes / 2; ++i) {
    out[i] = a[2 * i] | a[2 * i + 1] << 16;
    out[i + kLanes / 2] = b[2 * i] | b[2 * i + 1] << 16;
  }
  return out;
}

}  // namespace lectern
