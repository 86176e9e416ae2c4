// Relative positions around the attention kernels: the relative scores of every row before, the
// gradients of the tables after.
#include "cuda/ops/attention_relative.h"

namespace lectern::cuda {
namespace {

/// relative[b, h, i, :] = log2(e) q_i . (rows of both tables that meet row i).
template <typename T, int kDim>
__global__ void __launch_bounds__(AttentionTiles<T, kDim>::kThreads)
    relative_scores_kernel(AttentionProblem<T> p, Span<const float> table_h,
                           Span<const float> table_w, Span<float> relative) {
  using Tiles = AttentionTiles<T, kDim>;
  constexpr int kRows = Tiles::kRows, kKeys = Tiles::kKeys;
  SharedMemory memory;
  const auto q = take_tile<T>(memory, kRows, kDim), table = take_tile<T>(memory, kKeys, kDim);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kRows, batch = blockIdx.z;
  const int head = static_cast<int>(blockIdx.y), cells = p.grid_h + p.grid_w;
  const std::int64_t begin = ((batch * p.heads + head) * p.rows + first) * cells;
  copy_tile<kRows, kDim>(q, head_rows<T>(p.q, batch, first, head, p.dim), p.rows - first, p.dim,
                         p.packed);
  commit_copies();
  wait_copies<0>();
  const int strip = warp_of_thread() / 2 * 16, half = warp_of_thread() % 2;
  for (int number = 0; number < 2; ++number) {
    const RelativeAxis axis = relative_axis(p, number);
    for (int chunk = 0; chunk < axis.table_rows(); chunk += kKeys) {
      __syncthreads();
      fill_table_rows<kKeys, kDim>(table, number == 0 ? table_h : table_w, axis, chunk, p.dim);
      __syncthreads();
      Strip<kKeys / 16> s;
      s.clear();
      multiply<Transpose::no, Transpose::yes, kDim>(s, q, strip, 0, table, half * kKeys / 2, 0);
      for (int n = 0; n < kKeys / 16; ++n)
        for (int i = 0; i < 4; ++i) {
          const int row = strip + strip_row(i);
          const int table_row = chunk + half * kKeys / 2 + n * 8 + tile_column(i);
          const int entry = axis.entry_of(first + row, table_row);
          if (first + row < p.rows && table_row < axis.table_rows() && entry >= 0 &&
              entry < axis.grid)
            relative[begin + static_cast<std::int64_t>(row) * cells + axis.first_entry + entry] =
                s.tiles[n].sums[i] * kLog2E;
        }
    }
  }
}

/// partial[part, table row, d] = sum over the part's tiles of rows of grad_relative * q. A block
/// does kKeys rows of one table; parts take tiles in turn.
template <typename T, int kDim>
__global__ void __launch_bounds__(AttentionTiles<T, kDim>::kThreads)
    table_gradients_kernel(AttentionBackward<T> a, std::int64_t batches, int chunks_h,
                           Span<float> partial) {
  using Tiles = AttentionTiles<T, kDim>;
  constexpr int kRows = Tiles::kRows, kKeys = Tiles::kKeys;
  const AttentionProblem<T>& p = a.problem;
  SharedMemory memory;
  const auto q = take_tile<T>(memory, kRows, kDim), grad = take_tile<T>(memory, kRows, kKeys);
  const int number = static_cast<int>(blockIdx.x) < chunks_h ? 0 : 1;
  const RelativeAxis axis = relative_axis(p, number);
  const int chunk = (static_cast<int>(blockIdx.x) - number * chunks_h) * kKeys;
  const int cells = p.grid_h + p.grid_w;
  const std::int64_t row_tiles = (p.rows + kRows - 1) / kRows;
  const int strip = warp_of_thread() / 2 * 16, half = warp_of_thread() % 2;
  Strip<kDim / 16> sums;
  sums.clear();
  for (std::int64_t tile = blockIdx.y; tile < batches * p.heads * row_tiles; tile += gridDim.y) {
    const std::int64_t first = tile % row_tiles * kRows, head = tile / row_tiles % p.heads;
    const std::int64_t batch = tile / row_tiles / p.heads;
    const std::int64_t count = p.rows - first < kRows ? p.rows - first : kRows;
    __syncthreads();
    copy_tile<kRows, kDim>(q, head_rows<T>(p.q, batch, first, head, p.dim), count, p.dim, p.packed);
    fill_by_table_row<kRows, kKeys>(grad, a.grad_relative,
                                    ((batch * p.heads + head) * p.rows + first) * cells, cells,
                                    axis, chunk, first, static_cast<int>(count));
    commit_copies();
    wait_copies<0>();
    __syncthreads();
    multiply<Transpose::yes, Transpose::no, kRows>(sums, grad, 0, strip, q, 0, half * kDim / 2);
  }
  const int rows_h = 2 * p.grid_h - 1, all_rows = rows_h + 2 * p.grid_w - 1;
  for (int i = 0; i < 4; ++i) {
    const int row = chunk + strip + strip_row(i);
    if (row >= axis.table_rows()) continue;
    for (int n = 0; n < kDim / 16; ++n) {
      const int column = half * kDim / 2 + n * 8 + tile_column(i);
      if (column < p.dim)
        partial[(static_cast<std::int64_t>(blockIdx.y) * all_rows + number * rows_h + row) * p.dim +
                column] = sums.tiles[n].sums[i];
    }
  }
}

}  // namespace

template <typename T, int kDim>
void launch_relative_scores(const AttentionProblem<T>& p, const Span<const float>& table_h,
                            const Span<const float>& table_w, const Span<float>& relative,
                            std::int64_t batch) {
  using Tiles = AttentionTiles<T, kDim>;
  launch("attention_relative_scores",
         {dim3(static_cast<unsigned>(ceil_divide(p.rows, Tiles::kRows)),
               static_cast<unsigned>(p.heads), static_cast<unsigned>(batch)),
          Tiles::kThreads, tile_bytes<T>(Tiles::kRows, kDim) + tile_bytes<T>(Tiles::kKeys, kDim)},
         relative_scores_kernel<T, kDim>, p, table_h, table_w, relative);
}

template <typename T, int kDim>
void launch_table_gradients(const AttentionBackward<T>& a, std::int64_t batch, std::int64_t parts,
                            const Span<float>& partial) {
  using Tiles = AttentionTiles<T, kDim>;
  const AttentionProblem<T>& p = a.problem;
  const auto chunks_h = static_cast<int>(ceil_divide(2 * p.grid_h - 1, Tiles::kKeys));
  const auto chunks_w = static_cast<int>(ceil_divide(2 * p.grid_w - 1, Tiles::kKeys));
  launch("attention_table_gradients",
         {dim3(static_cast<unsigned>(chunks_h + chunks_w), static_cast<unsigned>(parts)),
          Tiles::kThreads,
          tile_bytes<T>(Tiles::kRows, kDim) + tile_bytes<T>(Tiles::kRows, Tiles::kKeys)},
         table_gradients_kernel<T, kDim>, a, batch, chunks_h, partial);
}

#define LECTERN_RELATIVE(T, kDim)                                                          \
  template void launch_relative_scores<T, kDim>(                                           \
      const AttentionProblem<T>&, const Span<const float>&, const Span<const float>&,      \
      const Span<float>&, std::int64_t);                                                   \
  template void launch_table_gradients<T, kDim>(const AttentionBackward<T>&, std::int64_t, \
                                                std::int64_t, const Span<float>&);
LECTERN_RELATIVE(float, 32)
LECTERN_RELATIVE(float, 64)
LECTERN_RELATIVE(float, 128)
LECTERN_RELATIVE(BFloat16, 32)
LECTERN_RELATIVE(BFloat16, 64)
LECTERN_RELATIVE(BFloat16, 128)
#undef LECTERN_RELATIVE

}  // namespace lectern::cuda
