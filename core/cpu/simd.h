// Vectors for the inner loops of CPU kernels, in three layers: registers of numbers (simd::Vector),
// pairs of bfloat16 in 32-bit lanes, and Lanes, a register that reads like a single number.
//
// Everything is built on the vector extension of GCC and clang, so the same lines become AVX-512,
// AVX2, SSE or NEON code. Kernels of one file know the size of their tiles; what they have in
// common stands here. CPU only.
#pragma once

#include "core/cpu/vector_math.h"

#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace lectern::simd {

#if defined(__AVX512F__)
inline constexpr int kRegisterBytes = 64;
#elif defined(__AVX__)
inline constexpr int kRegisterBytes = 32;
#else
inline constexpr int kRegisterBytes = 16;
#endif
/// What matrix products count in: a register, or two where they are small.
inline constexpr int kWideBytes = kRegisterBytes < 32 ? 32 : kRegisterBytes;

template <typename T, int kBytes>
struct VectorOf {
  typedef T Type __attribute__((vector_size(kBytes)));
};
template <typename T, int kBytes = kRegisterBytes>
using Vector = typename VectorOf<T, kBytes>::Type;
template <typename T, int kBytes = kRegisterBytes>
inline constexpr int kLanes = kBytes / static_cast<int>(sizeof(T));
/// The unsigned integer of T's size.
template <typename T>
using BitsOf = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

/// A vector of type V from any address.
template <typename V>
inline V load_as(const void* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
template <typename T>
inline Vector<T> load(const T* from) {
  return load_as<Vector<T>>(from);
}
template <typename V>
inline void store(void* to, const V& v) {
  std::memcpy(to, &v, sizeof v);
}
template <typename T>
inline Vector<T> splat(T x) {
  return x - Vector<T>{};  // x - 0 is x for every x; 0 + x would turn -0 into 0
}
template <typename T>
inline Vector<T> maximum(const Vector<T>& a, const Vector<T>& b) {
  return a > b ? a : b;
}

/// Lane i of the result is lane (i + step) mod lanes.
template <typename T, int kStep>
inline Vector<T> rotate(const Vector<T>& v) {
#if defined(__clang__)
  Vector<T> rotated;
  for (int i = 0; i < kLanes<T>; ++i) rotated[i] = v[(i + kStep) % kLanes<T>];
  return rotated;
#else
  Vector<BitsOf<T>> source;
  for (int i = 0; i < kLanes<T>; ++i) source[i] = (i + kStep) % kLanes<T>;
  return __builtin_shuffle(v, source);
#endif
}
template <typename T, int kStep = kLanes<T> / 2>
inline T horizontal_max(const Vector<T>& v) {
  if constexpr (kStep == 0)
    return v[0];
  else
    return horizontal_max<T, kStep / 2>(maximum<T>(v, rotate<T, kStep>(v)));
}
template <typename T, int kStep = kLanes<T> / 2>
inline T horizontal_sum(const Vector<T>& v) {
  if constexpr (kStep == 0)
    return v[0];
  else
    return horizontal_sum<T, kStep / 2>(v + rotate<T, kStep>(v));
}

/// The first `count` lanes, zero in the others.
template <typename T>
inline Vector<T> first_lanes(const Vector<T>& v, std::int64_t count) {
  if (count >= kLanes<T>) return v;
  Vector<BitsOf<T>> lane;
  for (int i = 0; i < kLanes<T>; ++i) lane[i] = i;
  return lane < static_cast<BitsOf<T>>(count) ? v : Vector<T>{};
}

/// 2^x for x <= 0 or a little above, lane by lane; 0 where the result would be subnormal, NaN stays
/// NaN. Attention keeps its scores in units of log 2, which saves the range reduction of e^x. It
/// does not stand in for fast_exp(): x log2(e) would have to be rounded first, an error of up to 88
/// units in the last place where that one has 2; and fast_exp() is for the GPU, too.
template <typename T>
inline __attribute__((always_inline)) Vector<T> exp2_vector(const Vector<T>& x) {
  constexpr bool kFloat = std::is_same_v<T, float>;
  // Adding 1.5 * 2^(mantissa bits) rounds to an integer n and leaves n in the low mantissa bits.
  constexpr T kRound = kFloat ? T(12582912.0) : T(6755399441055744.0);
  constexpr int kMantissaBits = std::numeric_limits<T>::digits - 1;
  const Vector<T> shifted = x + kRound;
  const Vector<T> r = x - (shifted - kRound);
  Vector<T> value;
  if constexpr (kFloat) {  // Lawson fit of 2^r on [-1/2, 1/2]: 1.9e-9 relative
    value = T(1.5345806e-4) * r + T(1.3399931e-3);
    value = value * r + T(9.6184891e-3);
    value = value * r + T(5.5503286e-2);
    value = value * r + T(0.24022646);
    value = value * r + T(0.69314718);
    value = value * r + T(1);
  } else {  // Taylor: (r ln 2)^14 / 14! < 5e-18
    constexpr T kLn2 = T(0.693147180559945309417232121458);
    const Vector<T> t = r * kLn2;
    value = splat(T(1));
#pragma GCC unroll 13
    for (int k = 13; k >= 1; --k) value = value * t * (T(1) / T(k)) + T(1);
  }
  // The low bits of kRound's pattern vanish in the shift; what remains is n in the exponent field.
  Vector<BitsOf<T>> bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  const auto one = std::bit_cast<BitsOf<T>>(T(1));
  bits = (bits << kMantissaBits) + one;
  Vector<T> scale;
  std::memcpy(&scale, &bits, sizeof scale);
  constexpr T kLowest = T(std::numeric_limits<T>::min_exponent - 1);
  return x < kLowest ? Vector<T>{} : value * scale;
}

// ---- pairs of bfloat16 --------------------------------------------------------------------------
// A 32-bit lane holds two numbers, the first in its low half. With AVX-512 BF16 each function is an
// instruction or two; elsewhere the same values come from f32 arithmetic.

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

}  // namespace lectern::simd

namespace lectern {

/// One 64-byte register of numbers with the arithmetic of a single number, so that code written for
/// one token (sinkhorn_math.h, stream_math.h) handles 16 f32 or 8 f64 tokens at a time, and tile
/// kernels read like scalar loops. A CUDA thread uses the same headers with plain numbers.
template <typename T>
struct Lanes {
  static constexpr int kCount = static_cast<int>(64 / sizeof(T));
  using Vector = simd::Vector<T, 64>;
  Vector v;

  Lanes() = default;
  Lanes(T all) : v(all - Vector{}) {}  // NOLINT: numbers mix with lanes; x - 0 is x, -0 too
  explicit Lanes(const Vector& lanes) : v(lanes) {}

  static Lanes load(const T* from) {
    Lanes out;
    std::memcpy(&out.v, from, sizeof(out.v));
    return out;
  }
  /// The first `count` numbers, zeros behind them.
  static Lanes load(const T* from, int count) {
    Lanes out(T(0));
    std::memcpy(&out.v, from, static_cast<std::size_t>(count) * sizeof(T));
    return out;
  }
  void store(T* to) const { std::memcpy(to, &v, sizeof(v)); }
  void store(T* to, int count) const {
    std::memcpy(to, &v, static_cast<std::size_t>(count) * sizeof(T));
  }
  /// Sum over lanes, halves first: always in the same order.
  T sum() const {
    alignas(64) T part[kCount];
    store(part);
    for (int width = kCount / 2; width > 0; width /= 2)
      for (int i = 0; i < width; ++i) part[i] += part[i + width];
    return part[0];
  }

  Lanes& operator+=(Lanes b) { return v += b.v, *this; }
  Lanes& operator-=(Lanes b) { return v -= b.v, *this; }
  Lanes& operator*=(Lanes b) { return v *= b.v, *this; }
  friend Lanes operator+(Lanes a, Lanes b) { return Lanes(a.v + b.v); }
  friend Lanes operator-(Lanes a, Lanes b) { return Lanes(a.v - b.v); }
  friend Lanes operator*(Lanes a, Lanes b) { return Lanes(a.v * b.v); }
  friend Lanes operator/(Lanes a, Lanes b) { return Lanes(a.v / b.v); }
  friend Lanes operator-(Lanes a) { return Lanes(-a.v); }
};

namespace lanes_detail {
template <typename T, typename F>
inline Lanes<T> each(Lanes<T> x, F f) {
  alignas(64) T value[Lanes<T>::kCount];
  x.store(value);
#pragma omp simd
  for (int i = 0; i < Lanes<T>::kCount; ++i) value[i] = f(value[i]);
  return Lanes<T>::load(value);
}
}  // namespace lanes_detail

template <typename T>
inline Lanes<T> maximum(Lanes<T> a, Lanes<T> b) {
  return Lanes<T>(a.v > b.v ? a.v : b.v);
}
/// 1 where a > b, else 0.
template <typename T>
inline Lanes<T> is_above(Lanes<T> a, Lanes<T> b) {
  return Lanes<T>(a.v > b.v ? Lanes<T>(T(1)).v : Lanes<T>(T(0)).v);
}
template <typename T>
inline Lanes<T> exponential(Lanes<T> x) {
  return lanes_detail::each(x, [](T value) { return fast_exp(value); });
}
template <typename T>
inline Lanes<T> hyperbolic_tangent(Lanes<T> x) {
  return lanes_detail::each(x, [](T value) { return fast_tanh(value); });
}
template <typename T>
inline Lanes<T> square_root(Lanes<T> x) {
  return lanes_detail::each(x, [](T value) { return std::sqrt(value); });
}

}  // namespace lectern
