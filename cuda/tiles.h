// Products of tiles in shared memory, a warp together: what attention and the expert products are
// made of. bf16 goes through the tile instruction, f32 through plain multiply-adds in the same
// layout of results, so that kernels are written once.
//
// A warp's sums are a strip of 16 rows by 8 kTiles columns. Of tile n, a lane holds, with
// g = lane / 4 and t = lane % 4: sums[0], [1] at (g, 8n + 2t), (g, 8n + 2t + 1) and sums[2], [3]
// eight rows below.
#pragma once

#include "cuda/device_code.h"

namespace lectern::cuda {

__device__ inline int lane_of_thread() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ inline int warp_of_thread() { return static_cast<int>(threadIdx.x) / kWarp; }
/// Row in the strip, and column in the tile, of the lane's sums[i].
__device__ inline int strip_row(int i) { return lane_of_thread() / 4 + i / 2 * 8; }
__device__ inline int tile_column(int i) { return lane_of_thread() % 4 * 2 + i % 2; }

template <int kTiles>
struct Strip {
  TileC tiles[kTiles];

  __device__ void clear() {
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) tiles[n].sums[i] = 0.0f;
  }
};

/// Elements of a row of a shared tile that is `columns` wide: padded by 16 bytes, so that eight
/// rows at the same column lie in different banks.
template <typename T>
__host__ __device__ constexpr int padded_columns(int columns) {
  return columns + 16 / static_cast<int>(sizeof(T));
}

/// A matrix in shared memory.
template <typename T>
struct SharedTile {
  Shared<T> data;
  int stride;

  __device__ auto at(int row, int column) const -> decltype(data[0]) {
    return data[row * stride + column];
  }
  /// Two neighbours, rounded to T.
  __device__ void store_pair(int row, int column, float a, float b) const {
    Pack<T, 2> pair;
    pair[0] = from_float<T>(a);
    pair[1] = from_float<T>(b);
    data.template store<2>(row * stride + column, pair);
  }
};

/// Rows [first, first + count) of a tile. Stages of a pipeline are rows of one tile: an array of
/// tiles that is indexed by the stage would go through the stack.
template <typename T>
__device__ inline SharedTile<T> rows_of_tile(const SharedTile<T>& tile, int first, int count) {
  return {tile.data.part(first * tile.stride, count * tile.stride), tile.stride};
}

template <typename T>
__device__ inline SharedTile<T> take_tile(SharedMemory& memory, int rows, int columns) {
  const int stride = padded_columns<T>(columns);
  return {memory.template take<T>(rows * stride), stride};
}
template <typename T>
constexpr std::size_t tile_bytes(int rows, int columns) {
  return shared_bytes_of<T>(static_cast<std::size_t>(rows * padded_columns<T>(columns)));
}

// Whether an operand is stored transposed. `no`: with its rows along the result's rows (a) or the
// depth (b).
enum class Transpose { no, yes };

/// c [16, 8 kTiles] += a [16, kDepth] b [kDepth, 8 kTiles].
///   a no: element (i, k) at a(row_a + i, column_a + k); yes: at a(row_a + k, column_a + i)
///   b no: element (k, j) at b(row_b + k, column_b + j); yes: at b(row_b + j, column_b + k)
/// kDepth a multiple of 16, kTiles even.
template <Transpose kA, Transpose kB, int kDepth, int kTiles>
__device__ inline void multiply(Strip<kTiles>& c, const SharedTile<BFloat16>& a, int row_a,
                                int column_a, const SharedTile<BFloat16>& b, int row_b,
                                int column_b) {
  static_assert(kDepth % 16 == 0 && kTiles % 2 == 0);
  // Lane i names row i % 8 of matrix i / 8 (load_matrices).
  const int row = lane_of_thread() % 8, matrix = lane_of_thread() / 8;
  const int odd = matrix % 2 * 8, high = matrix / 2 * 8;
#pragma unroll
  for (int k = 0; k < kDepth; k += 16) {
    TileA x;
    if constexpr (kA == Transpose::no)
      load_matrices<false>(x.parts, a.data, (row_a + odd + row) * a.stride + column_a + k + high);
    else
      load_matrices<true>(x.parts, a.data, (row_a + k + high + row) * a.stride + column_a + odd);
#pragma unroll
    for (int n = 0; n < kTiles; n += 2) {
      std::uint32_t parts[4];
      if constexpr (kB == Transpose::yes)
        load_matrices<false>(parts, b.data,
                             (row_b + n * 8 + high + row) * b.stride + column_b + k + odd);
      else
        load_matrices<true>(parts, b.data,
                            (row_b + k + odd + row) * b.stride + column_b + n * 8 + high);
      multiply_tile(c.tiles[n], x, TileB{{parts[0], parts[1]}});
      multiply_tile(c.tiles[n + 1], x, TileB{{parts[2], parts[3]}});
    }
  }
}

template <Transpose kA, Transpose kB, int kDepth, int kTiles>
__device__ inline void multiply(Strip<kTiles>& c, const SharedTile<float>& a, int row_a,
                                int column_a, const SharedTile<float>& b, int row_b, int column_b) {
  const int i = lane_of_thread() / 4, j = lane_of_thread() % 4 * 2;
  for (int k = 0; k < kDepth; ++k) {
    const float a0 =
        kA == Transpose::no ? a.at(row_a + i, column_a + k) : a.at(row_a + k, column_a + i);
    const float a1 =
        kA == Transpose::no ? a.at(row_a + i + 8, column_a + k) : a.at(row_a + k, column_a + i + 8);
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const float b0 = kB == Transpose::no ? b.at(row_b + k, column_b + n * 8 + j)
                                           : b.at(row_b + n * 8 + j, column_b + k);
      const float b1 = kB == Transpose::no ? b.at(row_b + k, column_b + n * 8 + j + 1)
                                           : b.at(row_b + n * 8 + j + 1, column_b + k);
      float* sums = c.tiles[n].sums;
      sums[0] += a0 * b0;
      sums[1] += a0 * b1;
      sums[2] += a1 * b0;
      sums[3] += a1 * b1;
    }
  }
}

/// Rows of a matrix in global memory, as a tile's source: element (row, column) of it is at
/// begin + row * step + column.
template <typename T>
struct Rows {
  Span<const T> data;
  std::int64_t begin, step;
};

/// Copies rows [0, rows) x columns [0, columns) to the tile, zeros up to kRows and kColumns; all
/// threads of the block take part. `packed`: addresses and steps allow 16-byte copies. The copies
/// are asynchronous: commit_copies, wait_copies and a barrier before use.
template <int kRows, int kColumns, typename T>
__device__ inline void copy_tile(const SharedTile<T>& tile, const Rows<T>& from, std::int64_t rows,
                                 int columns, bool packed) {
  constexpr int kPack = 16 / static_cast<int>(sizeof(T)), kPacks = kColumns / kPack;
  const int threads = static_cast<int>(blockDim.x);
  if (packed) {
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kPacks; i += threads) {
      const int row = i / kPacks, column = i % kPacks * kPack;
      copy_async<T>(tile.data, row * tile.stride + column, from.data,
                    from.begin + row * from.step + column, row < rows && column < columns);
    }
    return;
  }
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kColumns; i += threads) {
    const int row = i / kColumns, column = i % kColumns;
    T value = from_float<T>(0.0f);
    if (row < rows && column < columns) value = from.data[from.begin + row * from.step + column];
    tile.data[row * tile.stride + column] = value;
  }
}

}  // namespace lectern::cuda
