// What the matrix products share: scratch memory, transposition in registers, the split of
// the work over threads. Private to this room.
#pragma once

#include "core/cpu/gemm.h"
#include "core/cpu/simd.h"
#include "core/error.h"
#include "core/parallel.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <utility>

namespace lectern::gemm_tiles {

#ifdef __AVX512F__
inline constexpr int kRows = 12;
#else
inline constexpr int kRows = 6;
#endif
template <typename T>
using Vec = simd::Vector<T, simd::kWideBytes>;
template <typename T>
inline constexpr int kLanes = simd::kLanes<T, simd::kWideBytes>;
template <typename T>
inline constexpr int kColumns = 2 * kLanes<T>;

using simd::load_as;
using simd::store;

/// Memory of one thread for packed blocks, kept between calls.
template <typename T, int kSlot>
T* scratch(std::int64_t count) {
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  thread_local std::unique_ptr<T, Free> block;
  thread_local std::int64_t capacity = 0;
  if (capacity < count) {
    block.reset();
    capacity = 0;
    const auto bytes = (static_cast<std::size_t>(count) * sizeof(T) + 4095) / 4096 * 4096;
    block.reset(static_cast<T*>(std::aligned_alloc(4096, bytes)));
    if (block == nullptr)
      fail<MemoryError>(fmt::format("gemm: cannot get {} bytes to pack into", bytes));
    capacity = count;
  }
  return block.get();
}

/// Lanes of one butterfly step of a transposition: exchanges, at distance H, the upper lanes of x
/// with the lower lanes of y.
template <typename T, int H, int... L>
inline void exchange(Vec<T>& x, Vec<T>& y, std::integer_sequence<int, L...>) {
  const Vec<T> low =
      __builtin_shufflevector(x, y, ((L & H) == 0 ? L : L - H + static_cast<int>(sizeof...(L)))...);
  y = __builtin_shufflevector(x, y, ((L & H) == 0 ? L + H : L + static_cast<int>(sizeof...(L)))...);
  x = low;
}

template <typename T, int H>
inline void transpose_step(Vec<T> (&block)[kLanes<T>]) {
  if constexpr (H >= 1) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i)
      if ((i & H) == 0)
        exchange<T, H>(block[i], block[i + H], std::make_integer_sequence<int, kLanes<T>>());
    transpose_step<T, H / 2>(block);
  }
}

/// to[p * ldt + j] = element p of row j for one square of kLanes; rows are `pitch` bytes apart.
template <typename T>
inline void transpose_square(const void* from, std::int64_t pitch, T* to, std::int64_t ldt) {
  const char* rows = static_cast<const char*>(from);
  Vec<T> block[kLanes<T>];
#pragma GCC unroll 16
  for (int j = 0; j < kLanes<T>; ++j) block[j] = load_as<Vec<T>>(rows + j * pitch);
  transpose_step<T, kLanes<T> / 2>(block);
#pragma GCC unroll 16
  for (int p = 0; p < kLanes<T>; ++p) store(to + p * ldt, block[p]);
}

inline std::int64_t blocks(std::int64_t n, std::int64_t size) { return (n + size - 1) / size; }

/// Depth of each block of k: equal parts of at most `most`, a function of k alone.
inline std::int64_t depth_of(std::int64_t k, std::int64_t most) {
  return std::min<std::int64_t>(k, blocks(blocks(k, blocks(k, most)), 16) * 16);
}

inline const auto* offset_a(const GemmArgs& args, const auto* a, std::int64_t i, std::int64_t p) {
  return a + (args.transpose_a ? p * args.lda + i : i * args.lda + p);
}
inline const auto* offset_b(const GemmArgs& args, const auto* b, std::int64_t p, std::int64_t j) {
  return b + (args.transpose_b ? j * args.ldb + p : p * args.ldb + j);
}

/// Threads along rows and columns of C: as many as there is work for, and the split that reads
/// least.
inline std::pair<std::int64_t, std::int64_t> thread_grid(const GemmArgs& args,
                                                         std::int64_t columns) {
  constexpr double kWorkPerThread = 3e5;  // multiply-adds; several times the cost of a fork
  const double work =
      static_cast<double>(args.m) * static_cast<double>(args.n) * static_cast<double>(args.k);
  const auto threads =
      std::clamp<std::int64_t>(static_cast<std::int64_t>(work / kWorkPerThread), 1, thread_count());
  if (threads == 1 || omp_in_parallel()) return {1, 1};
  std::pair<std::int64_t, std::int64_t> best{1, 1};
  double best_cost = 0;
  for (std::int64_t by_row = 1; by_row <= threads; ++by_row) {
    const std::int64_t by_column = threads / by_row;
    const auto rows = static_cast<double>(blocks(blocks(args.m, kRows), by_row) * kRows);
    const auto cols = static_cast<double>(blocks(blocks(args.n, columns), by_column) * columns);
    const double cost = rows * cols + 8 * (rows + cols);  // products, and the packing of both sides
    if (by_row == 1 || cost < best_cost) {
      best = {by_row, by_column};
      best_cost = cost;
    }
  }
  return best;
}

/// Calls f(part, row, column) for the part of C that each thread owns and where it begins.
template <typename F>
void for_thread_parts(const GemmArgs& args, std::int64_t column_unit, F&& f) {
  const auto [by_row, by_column] = thread_grid(args, column_unit);
  const std::int64_t row_units = blocks(args.m, kRows);
  const std::int64_t column_units = blocks(args.n, column_unit);
  parallel_tasks(by_row * by_column, [&, by_row = by_row, by_column = by_column](std::int64_t i) {
    const std::int64_t r = i / by_column, s = i % by_column;
    const std::int64_t row = row_units * r / by_row * kRows;
    const std::int64_t column = column_units * s / by_column * column_unit;
    GemmArgs part = args;
    part.m = std::min(args.m, row_units * (r + 1) / by_row * kRows) - row;
    part.n = std::min(args.n, column_units * (s + 1) / by_column * column_unit) - column;
    if (part.m > 0 && part.n > 0) f(part, row, column);
  });
}

}  // namespace lectern::gemm_tiles
