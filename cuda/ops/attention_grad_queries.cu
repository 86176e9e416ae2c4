// Attention backward, the pass over tiles of queries: the gradient of q and, with relative
// positions, what reaches the relative scores of every row.
#include "cuda/ops/attention_backward.h"
#include "cuda/ops/attention_relative.h"

namespace lectern::cuda {
namespace {

/// Keys of a tile. With relative positions a tile is some whole rows of the grid, or part of one,
/// so that a column of the tile has the same x in every tile that begins a row.
struct KeyTiles {
  int keys, parts;  // keys a tile; tiles a row of the grid when rows are longer than a tile, else 1

  __device__ std::int64_t begin(std::int64_t number, int grid_w) const {
    return parts == 1 ? number * keys : number / parts * grid_w + number % parts * keys;
  }
};

/// Sums of the gradient of the scores over each row and each column of the grid, in shared memory;
/// every entry belongs to one thread. `by_row` has a part for either half of the keys.
template <int kRows>
struct RelativeSums {
  Shared<float> by_row;     // [2, kRows, grid_h]
  Shared<float> by_column;  // [kRows, width]
  int grid_h, grid_w, width;

  __device__ void clear() const {
    for (int i = static_cast<int>(threadIdx.x); i < 2 * kRows * grid_h;
         i += static_cast<int>(blockDim.x))
      by_row[i] = 0.0f;
    for (int i = static_cast<int>(threadIdx.x); i < kRows * width;
         i += static_cast<int>(blockDim.x))
      by_column[i] = 0.0f;
  }

  /// Adds a warp's strip of the tile whose first key is `key`, of which `left` columns count.
  template <int kTiles>
  __device__ void add(const Strip<kTiles>& grad, std::int64_t key, int left) const {
    const int strip = warp_of_thread() / 2 * 16, half = warp_of_thread() % 2;
    const int x = static_cast<int>(key % grid_w), y = static_cast<int>(key / grid_w);
    const int last = (x + left - 1) / grid_w;
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = half * kTiles * 8 + n * 8 + tile_column(i);
        if (column < left)
          by_column[(strip + strip_row(i)) * width + x + column] += grad.tiles[n].sums[i];
      }
    for (int row_of_grid = 0; row_of_grid <= last; ++row_of_grid)
      for (int pair = 0; pair < 2; ++pair) {
        float sum = 0;
#pragma unroll
        for (int n = 0; n < kTiles; ++n)
#pragma unroll
          for (int i = 2 * pair; i < 2 * pair + 2; ++i) {
            const int column = half * kTiles * 8 + n * 8 + tile_column(i);
            if (column < left && (x + column) / grid_w == row_of_grid) sum += grad.tiles[n].sums[i];
          }
        sum += __shfl_xor_sync(kAllLanes, sum, 1);
        sum += __shfl_xor_sync(kAllLanes, sum, 2);
        if (lane_of_thread() % 4 == 0)
          by_row[(half * kRows + strip + strip_row(2 * pair)) * grid_h + y + row_of_grid] += sum;
      }
  }

  /// Writes the sums of `count` rows to out[first_entry ...] [count, grid_h + grid_w].
  __device__ void write(const Span<float>& out, std::int64_t first_entry, int count) const {
    const int cells = grid_h + grid_w;
    for (int i = static_cast<int>(threadIdx.x); i < count * cells;
         i += static_cast<int>(blockDim.x)) {
      const int row = i / cells, cell = i % cells;
      float sum = 0;
      if (cell < grid_h) {
        sum = by_row[row * grid_h + cell] + by_row[(kRows + row) * grid_h + cell];
      } else {
        for (int x = cell - grid_h; x < width; x += grid_w) sum += by_column[row * width + x];
      }
      out[first_entry + i] = sum;
    }
  }
};

template <typename T, int kDim>
__global__ void __launch_bounds__(AttentionTiles<T, kDim>::kThreads)
    grad_queries_kernel(AttentionBackward<T> a, KeyTiles key_tiles, int width) {
  using Tiles = AttentionTiles<T, kDim>;
  constexpr int kRows = Tiles::kRows, kKeys = Tiles::kKeys;
  const AttentionProblem<T>& p = a.problem;
  SharedMemory memory;
  const auto scratch = memory.take<float>(Tiles::kThreads / kWarp);
  const auto k = take_tile<T>(memory, kKeys, kDim), v = take_tile<T>(memory, kKeys, kDim);
  const auto q = take_tile<T>(memory, kRows, kDim), grad_out = take_tile<T>(memory, kRows, kDim);
  const auto grad_scores = take_tile<T>(memory, kRows, kKeys);
  const bool relative = p.relative.exists();
  const RelativeSums<kRows> sums{memory.take<float>(relative ? 2 * kRows * p.grid_h : 0),
                                 memory.take<float>(kRows * width), p.grid_h, p.grid_w, width};

  const std::int64_t tile = gridDim.x - 1 - blockIdx.x, batch = blockIdx.z;
  const int head = static_cast<int>(blockIdx.y), kv_head = head / (p.heads / p.kv_heads);
  const std::int64_t first = tile * kRows;
  const std::int64_t count = p.rows - first < kRows ? p.rows - first : kRows;
  copy_tile<kRows, kDim>(q, head_rows<T>(p.q, batch, first, head, p.dim), count, p.dim, p.packed);
  copy_tile<kRows, kDim>(grad_out, head_rows<T>(a.grad_out, batch, first, head, p.dim), count,
                         p.dim, p.packed);
  if (relative) sums.clear();
  std::int64_t begin, end;
  key_range(p, batch, first, count, scratch, begin, end);
  const int strip = warp_of_thread() / 2 * 16, half = warp_of_thread() % 2;
  Strip<kDim / 16> grad_q;
  grad_q.clear();
  for (std::int64_t number = relative ? 0 : begin / kKeys;; ++number) {
    const std::int64_t key = relative ? key_tiles.begin(number, p.grid_w) : number * kKeys;
    if (key >= end) break;
    std::int64_t left = p.keys - key < kKeys ? p.keys - key : kKeys;
    if (relative) {
      const std::int64_t in_row = key_tiles.parts == 1 ? key_tiles.keys : p.grid_w - key % p.grid_w;
      const std::int64_t most = in_row < key_tiles.keys ? in_row : key_tiles.keys;
      left = left < most ? left : most;
    }
    copy_tile<kKeys, kDim>(k, head_rows<T>(p.k, batch, key, kv_head, p.dim), left, p.dim, p.packed);
    copy_tile<kKeys, kDim>(v, head_rows<T>(p.v, batch, key, kv_head, p.dim), left, p.dim, p.packed);
    commit_copies();
    wait_copies<0>();
    __syncthreads();
    ScoreGradients<kKeys / 16> g;
    score_gradients<kDim>(g, a, q, grad_out, k, v, batch, head, first, key);
    for (int n = 0; n < kKeys / 16; ++n)
      for (int i = 0; i < 4; i += 2) {
        const int column = half * kKeys / 2 + n * 8 + tile_column(i);
        float* sums_of_tile = g.grad.tiles[n].sums;
        // Columns past the tile belong to the next one.
        if (column >= left) sums_of_tile[i] = 0.0f;
        if (column + 1 >= left) sums_of_tile[i + 1] = 0.0f;
        grad_scores.store_pair(strip + strip_row(i), column, sums_of_tile[i], sums_of_tile[i + 1]);
      }
    if (relative) sums.add(g.grad, key, static_cast<int>(left));
    __syncthreads();
    multiply<Transpose::no, Transpose::no, kKeys>(grad_q, grad_scores, strip, 0, k, 0,
                                                  half * kDim / 2);
    __syncthreads();  // the tiles are filled again in the next turn
  }
  for (int n = 0; n < kDim / 16; ++n)
    for (int i = 0; i < 4; ++i) grad_q.tiles[n].sums[i] *= p.scale;
  if (relative) {
    const int cells = p.grid_h + p.grid_w;
    const std::int64_t entry = ((batch * p.heads + head) * p.rows + first) * cells;
    sums.write(a.grad_relative, entry, static_cast<int>(count));
    __syncthreads();  // the rows that others wrote to global memory are read below
    for (int axis = 0; axis < 2; ++axis) {
      const RelativeAxis table = relative_axis(p, axis);
      for (int chunk = 0; chunk < table.table_rows(); chunk += kKeys) {
        fill_table_rows<kKeys, kDim>(k, axis == 0 ? a.table_h : a.table_w, table, chunk, p.dim);
        fill_by_table_row<kRows, kKeys>(grad_scores, a.grad_relative, entry, cells, table, chunk,
                                        first, static_cast<int>(count));
        __syncthreads();
        multiply<Transpose::no, Transpose::no, kKeys>(grad_q, grad_scores, strip, 0, k, 0,
                                                      half * kDim / 2);
        __syncthreads();
      }
    }
  }
  for (int i = 0; i < 4; ++i) {
    const std::int64_t row = first + strip + strip_row(i);
    if (row >= p.rows) continue;
    const std::int64_t at = a.grad_q.at(batch, row, head, p.dim);
    for (int n = 0; n < kDim / 16; ++n) {
      const int column = half * kDim / 2 + n * 8 + tile_column(i);
      if (column < p.dim) a.grad_q.data[at + column] = from_float<T>(grad_q.tiles[n].sums[i]);
    }
  }
}

}  // namespace

template <typename T, int kDim>
void launch_grad_queries(const AttentionBackward<T>& a, std::int64_t batch) {
  using Tiles = AttentionTiles<T, kDim>;
  const AttentionProblem<T>& p = a.problem;
  const bool relative = p.relative.exists();
  KeyTiles key_tiles{Tiles::kKeys, 1};
  int width = 0;
  if (relative && p.grid_w <= Tiles::kKeys) {
    width = key_tiles.keys = Tiles::kKeys / p.grid_w * p.grid_w;
  } else if (relative) {
    width = p.grid_w;
    key_tiles.parts = static_cast<int>(ceil_divide(p.grid_w, Tiles::kKeys));
  }
  const std::size_t shared =
      shared_bytes_of<float>(Tiles::kThreads / kWarp) + 2 * tile_bytes<T>(Tiles::kKeys, kDim) +
      2 * tile_bytes<T>(Tiles::kRows, kDim) + tile_bytes<T>(Tiles::kRows, Tiles::kKeys) +
      shared_bytes_of<float>(relative ? static_cast<std::size_t>(2 * Tiles::kRows * p.grid_h) : 0) +
      shared_bytes_of<float>(static_cast<std::size_t>(Tiles::kRows * width));
  launch("attention_grad_queries",
         {dim3(static_cast<unsigned>(ceil_divide(p.rows, Tiles::kRows)),
               static_cast<unsigned>(p.heads), static_cast<unsigned>(batch)),
          Tiles::kThreads, shared},
         grad_queries_kernel<T, kDim>, a, key_tiles, width);
}

template void launch_grad_queries<float, 32>(const AttentionBackward<float>&, std::int64_t);
template void launch_grad_queries<float, 64>(const AttentionBackward<float>&, std::int64_t);
template void launch_grad_queries<float, 128>(const AttentionBackward<float>&, std::int64_t);
template void launch_grad_queries<BFloat16, 32>(const AttentionBackward<BFloat16>&, std::int64_t);
template void launch_grad_queries<BFloat16, 64>(const AttentionBackward<BFloat16>&, std::int64_t);
template void launch_grad_queries<BFloat16, 128>(const AttentionBackward<BFloat16>&, std::int64_t);

}  // namespace lectern::cuda
