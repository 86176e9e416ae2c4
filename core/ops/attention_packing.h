// How the CPU attention kernels bring their operands into the order in which the register tiles
// read them. Private to this room.
#pragma once

#include "core/ops/attention_tiles.h"

namespace lectern::attention_tiles {

template <typename T>
using Quads = simd::Vector<T, 4 * static_cast<int>(sizeof(T))>;

/// Rows of a 4 x 4 matrix become its columns.
template <typename Quad>
inline void transpose_square(Quad (&q)[4]) {
  const Quad a = __builtin_shufflevector(q[0], q[1], 0, 4, 1, 5);
  const Quad b = __builtin_shufflevector(q[2], q[3], 0, 4, 1, 5);
  const Quad d = __builtin_shufflevector(q[0], q[1], 2, 6, 3, 7);
  const Quad e = __builtin_shufflevector(q[2], q[3], 2, 6, 3, 7);
  q[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
  q[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
  q[2] = __builtin_shufflevector(d, e, 0, 1, 4, 5);
  q[3] = __builtin_shufflevector(d, e, 2, 3, 6, 7);
}

/// Up to one vector of numbers, zero behind them.
inline Vector<float> load_first(const float* from, std::int64_t count) {
  if (count >= kLanes<float>) return load(from);
  float padded[kLanes<float>] = {};
  for (std::int64_t i = 0; i < count; ++i) padded[i] = from[i];
  return load(static_cast<const float*>(padded));
}

/// destination[c * destination_stride + r] = factor * source[r * source_stride + c]
template <typename T>
inline void transpose(const T* source, std::int64_t rows, std::int64_t columns,
                      std::int64_t source_stride, T* destination, std::int64_t destination_stride,
                      T factor) {
  std::int64_t r = 0;
  if constexpr (std::is_same_v<T, float>) {
    using Quad = Quads<float>;
    for (; r + 4 <= rows; r += 4) {
      const float* s = source + r * source_stride;
      for (std::int64_t c = 0; c + 4 <= columns; c += 4) {
        Quad q[4];
        for (int i = 0; i < 4; ++i) {
          std::memcpy(&q[i], s + i * source_stride + c, sizeof(Quad));
          q[i] *= factor;
        }
        transpose_square(q);
        for (int i = 0; i < 4; ++i)
          std::memcpy(destination + (c + i) * destination_stride + r, &q[i], sizeof(Quad));
      }
      for (std::int64_t c = columns / 4 * 4; c < columns; ++c)
        for (int i = 0; i < 4; ++i)
          destination[c * destination_stride + r + i] = factor * s[i * source_stride + c];
    }
  }
  for (; r < rows; ++r)
    for (std::int64_t c = 0; c < columns; ++c)
      destination[c * destination_stride + r] = factor * source[r * source_stride + c];
}

/// The same for pairs along a row: destination[c * destination_stride + r] = the pair 2 c, 2 c + 1
/// of row r. Writes whole groups of four r, zero for rows that do not exist.
inline void transpose(const float* source, std::int64_t rows, std::int64_t columns,
                      std::int64_t source_stride, Bf16Pair* destination,
                      std::int64_t destination_stride, float factor) {
  constexpr std::int64_t kL = kLanes<float>;
  for (std::int64_t r = 0; r < rows; r += 4)
    for (std::int64_t c = 0; c < columns; c += 2 * kL) {
      Bf16Pair block[4][kL] = {};
      for (std::int64_t i = 0; i < std::min<std::int64_t>(4, rows - r); ++i) {
        const float* row = source + (r + i) * source_stride + c;
        const Vector<float> low = load_first(row, columns - c) * factor;
        const Vector<float> high =
            columns - c > kL ? load_first(row + kL, columns - c - kL) * factor : Vector<float>{};
        store(block[i], round_along<Vector<Bf16Pair>>(low, high));
      }
      const std::int64_t count = cells<Bf16Pair>(std::min(columns - c, 2 * kL));
      Bf16Pair* to = destination + c / 2 * destination_stride + r;
      for (std::int64_t q = 0; q < count; q += 4) {
        Quads<Bf16Pair> square[4];
        for (int i = 0; i < 4; ++i) std::memcpy(&square[i], block[i] + q, sizeof square[i]);
        transpose_square(square);
        for (std::int64_t i = 0; i < std::min<std::int64_t>(4, count - q); ++i)
          std::memcpy(to + (q + i) * destination_stride, &square[i], sizeof square[i]);
      }
    }
}

/// Rows of `dim` values -> panels [ceil(rows / width)][cells of dim][width], transposed inside a
/// panel; rows that do not exist are zero. Width kPanel for the vector side of a product, kRows for
/// the other.
template <typename T, typename Cell>
inline void pack_panels(const T* source, std::int64_t rows, std::int64_t source_stride,
                        std::int64_t dim, std::int64_t width, T factor, Cell* panels) {
  const std::int64_t depth = cells<Cell>(dim);
  for (std::int64_t first = 0; first < rows; first += width) {
    const std::int64_t count = std::min(width, rows - first);
    Cell* panel = panels + first * depth;
    if (count < width) std::fill(panel, panel + depth * width, Cell{0});
    transpose(source + first * source_stride, count, dim, source_stride, panel, width, factor);
  }
}

/// Rows of `dim` values -> factor * [padded_rows][padded_dim], zero outside.
template <typename T>
inline void pack_rows(const T* source, std::int64_t rows, std::int64_t source_stride,
                      std::int64_t dim, std::int64_t padded_rows, std::int64_t padded_dim, T factor,
                      T* destination) {
  for (std::int64_t r = 0; r < rows; ++r) {
    T* row = destination + r * padded_dim;
    for (std::int64_t c = 0; c < dim; ++c) row[c] = factor * source[r * source_stride + c];
    std::fill(row + dim, row + padded_dim, T(0));
  }
  std::fill(destination + rows * padded_dim, destination + padded_rows * padded_dim, T(0));
}

/// The same with pairs of rows: [cells of padded_rows][padded_dim].
inline void pack_rows(const float* source, std::int64_t rows, std::int64_t source_stride,
                      std::int64_t dim, std::int64_t padded_rows, std::int64_t padded_dim,
                      float factor, Bf16Pair* destination) {
  constexpr std::int64_t kL = kLanes<float>;
  for (std::int64_t r = 0; r < rows; r += 2) {
    const float* first = source + r * source_stride;
    Bf16Pair* to = destination + r / 2 * padded_dim;
    for (std::int64_t c = 0; c < padded_dim; c += kL) {
      const std::int64_t count = dim - c;
      const Vector<float> upper = load_first(first + c, count) * factor;
      const Vector<float> lower =
          r + 1 < rows ? load_first(first + source_stride + c, count) * factor : Vector<float>{};
      store(to + c, round_across<Vector<Bf16Pair>>(upper, lower));
    }
  }
  std::fill(destination + cells<Bf16Pair>(rows) * padded_dim,
            destination + cells<Bf16Pair>(padded_rows) * padded_dim, Bf16Pair{0});
}

/// Cuts one block of memory into aligned pieces; with a null base it only counts.
template <typename T>
class Carver {
 public:
  explicit Carver(T* base) : base_(base) {}
  T* take(std::int64_t count) {
    T* piece = base_ == nullptr ? nullptr : base_ + used_;
    used_ += round_up(count, 64 / std::int64_t(sizeof(T)));
    return piece;
  }
  /// Cells take the place of numbers.
  template <typename Cell>
  Cell* take_cells(std::int64_t count) {
    static_assert(sizeof(Cell) == sizeof(T));
    return static_cast<Cell*>(static_cast<void*>(take(count)));
  }
  std::int64_t used() const { return used_; }

 private:
  T* base_;
  std::int64_t used_ = 0;
};

}  // namespace lectern::attention_tiles
