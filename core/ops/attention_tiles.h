// Register tiles of the CPU attention kernels: vectors, exp2, the one matrix micro-kernel, packing.
//
// Everything is built on the vector extension of GCC and clang, so the same lines become AVX-512,
// AVX2, SSE or NEON code. A micro-kernel keeps kRows x (1..kColumns) vectors of accumulators in
// registers: 8 x 3 of the 32 registers of AVX-512, 4 x 3 of 16 elsewhere.
//
// What a product reads lies in cells: a cell is a number (float, double), or a pair of neighbours
// along the summed dimension, rounded to bfloat16 (Bf16Pair). Cells have the size of the numbers
// they come from, so only the depth of a matrix differs.
#pragma once

#include "core/cpu/bf16_vector.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace lectern::attention_tiles {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
inline constexpr int kRows = 8;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
inline constexpr int kRows = 4;
#else
inline constexpr int kVectorBytes = 16;
inline constexpr int kRows = 4;
#endif
inline constexpr int kColumns = 3;
/// Query rows that one task handles.
inline constexpr int kTileRows = 64;
static_assert(kTileRows % kRows == 0);

template <typename T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float Type __attribute__((vector_size(kVectorBytes)));
  typedef std::uint32_t Integer __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
  typedef double Type __attribute__((vector_size(kVectorBytes)));
  typedef std::uint64_t Integer __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<Bf16Pair> {
  typedef Bf16Pair Type __attribute__((vector_size(kVectorBytes)));
};
template <typename T>
using Vector = typename VectorOf<T>::Type;

/// What products of cells are added up in.
template <typename Cell>
using Sum = std::conditional_t<std::is_same_v<Cell, Bf16Pair>, float, Cell>;
template <typename Cell>
inline constexpr bool kIsPair = std::is_same_v<Cell, Bf16Pair>;
/// Numbers in a cell.
template <typename Cell>
inline constexpr int kPer = kIsPair<Cell> ? 2 : 1;
/// Cells that hold n numbers.
template <typename Cell>
constexpr std::int64_t cells(std::int64_t n) {
  return (n + kPer<Cell> - 1) / kPer<Cell>;
}

template <typename T>
inline constexpr int kLanes = kVectorBytes / int(sizeof(T));
/// Keys in one packed panel.
template <typename T>
inline constexpr int kPanel = kColumns* kLanes<T>;

constexpr std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

template <typename T>
inline Vector<T> load(const T* p) {
  Vector<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <typename T>
inline void store(T* p, const Vector<T>& v) {
  std::memcpy(p, &v, sizeof v);
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
  typename VectorOf<T>::Integer source;
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

template <typename T>
inline T dot(const T* a, const T* b, std::int64_t n) {
  Vector<T> sums{};
  std::int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) sums += load(a + i) * load(b + i);
  T sum = horizontal_sum<T>(sums);
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// The first `count` lanes, zero in the others.
template <typename T>
inline Vector<T> first_lanes(const Vector<T>& v, std::int64_t count) {
  if (count >= kLanes<T>) return v;
  using Integer = typename VectorOf<T>::Integer;
  Integer lane;
  for (int i = 0; i < kLanes<T>; ++i) lane[i] = i;
  return lane < static_cast<std::remove_reference_t<decltype(lane[0])>>(count) ? v : Vector<T>{};
}

/// 2^x for x <= 0 or a little above, lane by lane; 0 where the result would be subnormal, NaN stays
/// NaN. Scores are kept in units of log 2, which saves the range reduction of e^x.
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
  using Integer = typename VectorOf<T>::Integer;
  Integer bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  const auto one = std::bit_cast<std::conditional_t<kFloat, std::uint32_t, std::uint64_t>>(T(1));
  bits = (bits << kMantissaBits) + one;
  Vector<T> scale;
  std::memcpy(&scale, &bits, sizeof scale);
  constexpr T kLowest = T(std::numeric_limits<T>::min_exponent - 1);
  return x < kLowest ? Vector<T>{} : value * scale;
}

/// accumulators[r][v] += sum_k a[r * row_stride + k * depth_stride] * b[k * b_stride + lanes of v].
/// The only matrix product here: a is read one cell at a time and broadcast, b in vectors. With
/// constants for the strides of a (std::integral_constant) every address is an immediate.
template <typename Cell, int kVectors, typename RowStride, typename DepthStride>
inline __attribute__((always_inline)) void multiply(
    std::int64_t depth, const Cell* a, RowStride row_stride, DepthStride depth_stride,
    const Cell* b, std::int64_t b_stride, Vector<Sum<Cell>> (&accumulators)[kRows][kVectors]) {
  for (std::int64_t k = 0; k < depth; ++k) {
    Vector<Cell> columns[kVectors];
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) columns[v] = load(b + v * kLanes<Cell>);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vector<Cell> value = splat(a[r * row_stride]);
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) {
        if constexpr (kIsPair<Cell>)
          accumulators[r][v] = add_pair_products(accumulators[r][v], value, columns[v]);
        else
          accumulators[r][v] += value * columns[v];
      }
    }
    a += depth_stride;
    b += b_stride;
  }
}

template <int kValue>
using Constant = std::integral_constant<std::int64_t, kValue>;

/// Calls f(Constant<n>, v) for consecutive chunks of n <= kColumns vectors that cover 0..vectors-1.
template <typename F>
inline void for_column_chunks(std::int64_t vectors, F&& f) {
  std::int64_t v = 0;
  while (vectors - v >= 3 && vectors - v != 4) {
    f(Constant<3>{}, v);
    v += 3;
  }
  for (; vectors - v >= 2; v += 2) f(Constant<2>{}, v);
  if (v < vectors) f(Constant<1>{}, v);
}

/// c[r] = c[r] * factor[r] + sum_k a[r][k] b[k] for kRows rows of kVectors vectors; a null factor
/// is 1. Not inlined: in a larger function GCC runs out of registers and spills the accumulators.
template <typename Cell, int kVectors, typename RowStride, typename DepthStride>
__attribute__((noinline)) void add_tile(std::int64_t depth, const Cell* a, RowStride row_stride,
                                        DepthStride depth_stride, const Cell* b,
                                        std::int64_t b_stride, const Sum<Cell>* factor,
                                        Sum<Cell>* c, std::int64_t c_stride) {
  using T = Sum<Cell>;
  Vector<T> sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = load(c + r * c_stride + v * kLanes<T>);
      if (factor != nullptr) sums[r][v] *= factor[r];
    }
  multiply<Cell, kVectors>(depth, a, row_stride, depth_stride, b, b_stride, sums);
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) store(c + r * c_stride + v * kLanes<T>, sums[r][v]);
}

/// add_tile over rows of `vectors` vectors.
template <typename Cell, typename RowStride, typename DepthStride>
inline void add_tiles(std::int64_t depth, const Cell* a, RowStride row_stride,
                      DepthStride depth_stride, const Cell* b, const Sum<Cell>* factor,
                      Sum<Cell>* c, std::int64_t stride) {
  constexpr int kL = kLanes<Cell>;
  for_column_chunks(stride / kL, [&]<typename Count>(Count, std::int64_t first) {
    add_tile<Cell, int(Count::value)>(depth, a, row_stride, depth_stride, b + first * kL, stride,
                                      factor, c + first * kL, stride);
  });
}

/// out[r * stride + key] = (out, if `accumulate`, +) query[r] . key for kRows packed queries and
/// one panel of keys.
template <typename Cell, int kVectors, typename Stride>
__attribute__((noinline)) void score_panel(const Cell* query, const Cell* panel, std::int64_t depth,
                                           bool accumulate, Sum<Cell>* out, Stride stride) {
  using T = Sum<Cell>;
  Vector<T> sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v)
      sums[r][v] = accumulate ? load(out + r * stride + v * kLanes<T>) : Vector<T>{};
  multiply<Cell, kVectors>(depth, query, Constant<1>{}, Constant<kRows>{}, panel, kPanel<T>, sums);
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) store(out + r * stride + v * kLanes<T>, sums[r][v]);
}

}  // namespace lectern::attention_tiles
