// Register tiles of the CPU attention kernels: the one matrix micro-kernel. It keeps kRows x
// (1..kColumns) vectors of accumulators in registers: 8 x 3 of the 32 registers of AVX-512, 4 x 3
// of 16 elsewhere.
//
// What a product reads lies in cells: a cell is a number (float, double), or a pair of neighbours
// along the summed dimension, rounded to bfloat16 (Bf16Pair). Cells have the size of the numbers
// they come from, so only the depth of a matrix differs.
#pragma once

#include "core/cpu/simd.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace lectern::attention_tiles {

using simd::Bf16Pair;
using simd::exp2_vector;
using simd::first_lanes;
using simd::horizontal_max;
using simd::horizontal_sum;
using simd::kLanes;
using simd::load;
using simd::maximum;
using simd::round_across;
using simd::round_along;
using simd::splat;
using simd::store;
using simd::Vector;

#ifdef __AVX512F__
inline constexpr int kRows = 8;
#else
inline constexpr int kRows = 4;
#endif
inline constexpr int kColumns = 3;
/// Query rows that one task handles.
inline constexpr int kTileRows = 64;
static_assert(kTileRows % kRows == 0);

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

/// Keys in one packed panel.
template <typename T>
inline constexpr int kPanel = kColumns* kLanes<T>;

constexpr std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
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
          accumulators[r][v] = simd::add_pair_products(accumulators[r][v], value, columns[v]);
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
