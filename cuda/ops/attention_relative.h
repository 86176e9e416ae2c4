// Decomposed relative positions as products of tiles: entry ky of a row at (y, x) meets row
// y - ky + grid_h - 1 of table_h, and entry kx row x - kx + grid_w - 1 of table_w. So a row's
// entries and the rows of a table are one and the same list, shifted and turned round.
#pragma once

#include "cuda/ops/attention_problem.h"

namespace lectern::cuda {

/// One of the two tables, as a row of the grid's tokens sees it.
struct RelativeAxis {
  int grid;         ///< grid_h or grid_w
  int grid_w;       ///< to find the token's place
  int axis;         ///< 0: y and table_h, 1: x and table_w
  int first_entry;  ///< where the axis begins in a row of relative scores

  __device__ int table_rows() const { return 2 * grid - 1; }
  __device__ int place(std::int64_t token) const {
    const int number = static_cast<int>(token);
    return axis == 0 ? number / grid_w : number % grid_w;
  }
  /// The entry of the token's relative scores that meets a row of the table; outside 0..grid-1:
  /// none.
  __device__ int entry_of(std::int64_t token, int table_row) const {
    return place(token) + grid - 1 - table_row;
  }
};

template <typename T>
__device__ inline RelativeAxis relative_axis(const AttentionProblem<T>& p, int axis) {
  return {axis == 0 ? p.grid_h : p.grid_w, p.grid_w, axis, axis == 0 ? 0 : p.grid_h};
}

/// Rows [chunk, chunk + kKeys) of a table, zeros past its end.
template <int kKeys, int kDim, typename T>
__device__ inline void fill_table_rows(const SharedTile<T>& tile, const Span<const float>& table,
                                       const RelativeAxis& axis, int chunk, int dim) {
  for (int i = static_cast<int>(threadIdx.x); i < kKeys * kDim; i += static_cast<int>(blockDim.x)) {
    const int row = i / kDim, column = i % kDim;
    float value = 0;
    if (chunk + row < axis.table_rows() && column < dim)
      value = table[static_cast<std::int64_t>(chunk + row) * dim + column];
    tile.data[row * tile.stride + column] = from_float<T>(value);
  }
}

/// tile(row, c) = the entry of `relative` (rows of `cells` from `begin`) of token first + row that
/// meets table row chunk + c, or zero.
template <int kRows, int kKeys, typename T>
__device__ inline void fill_by_table_row(const SharedTile<T>& tile, const Span<float>& relative,
                                         std::int64_t begin, int cells, const RelativeAxis& axis,
                                         int chunk, std::int64_t first, int count) {
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kKeys;
       i += static_cast<int>(blockDim.x)) {
    const int row = i / kKeys, column = i % kKeys;
    const int entry = axis.entry_of(first + row, chunk + column);
    float value = 0;
    if (row < count && entry >= 0 && entry < axis.grid)
      value = relative[begin + static_cast<std::int64_t>(row) * cells + axis.first_entry + entry];
    tile.data[row * tile.stride + column] = from_float<T>(value);
  }
}

}  // namespace lectern::cuda
