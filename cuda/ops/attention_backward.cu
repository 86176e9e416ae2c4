// Attention backward, twice over the scores: once a tile of keys for the gradients of k and v, once
// a tile of queries for that of q. The second pass costs two products more than one pass that adds
// q's gradient up atomically, and gives the same bits in every run.
#include "cuda/ops/attention_backward.h"

namespace lectern::cuda {
namespace {

/// delta[b, h, i] = sum over d of grad_out * out; a warp a row of a head.
template <typename T>
__global__ void delta_kernel(AttentionBackward<T> a, std::int64_t count) {
  const AttentionProblem<T>& p = a.problem;
  const std::int64_t warps = static_cast<std::int64_t>(gridDim.x) * (blockDim.x / kWarp);
  for (std::int64_t i =
           static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / kWarp) + warp_of_thread();
       i < count; i += warps) {
    const std::int64_t row = i % p.rows, head = i / p.rows % p.heads, batch = i / p.rows / p.heads;
    const std::int64_t at = a.grad_out.at(batch, row, head, p.dim);
    const std::int64_t at_out = a.out.at(batch, row, head, p.dim);
    float sum = 0;
    for (int d = lane_of_thread(); d < p.dim; d += kWarp)
      sum += to_float(a.grad_out.data[at + d]) * to_float(a.out.data[at_out + d]);
    sum = warp_sum(sum);
    if (lane_of_thread() == 0) a.delta[i] = sum;
  }
}

/// Gradients of k and v of one tile of keys of one key/value head, over all query heads of its
/// group and all tiles of queries that see it.
template <typename T, int kDim>
__global__ void __launch_bounds__(AttentionTiles<T, kDim>::kThreads)
    grad_keys_kernel(AttentionBackward<T> a) {
  using Tiles = AttentionTiles<T, kDim>;
  constexpr int kRows = Tiles::kRows, kKeys = Tiles::kKeys;
  const AttentionProblem<T>& p = a.problem;
  SharedMemory memory;
  const auto scratch = memory.take<float>(Tiles::kThreads / kWarp);
  const auto k = take_tile<T>(memory, kKeys, kDim), v = take_tile<T>(memory, kKeys, kDim);
  const auto q = take_tile<T>(memory, kRows, kDim), grad_out = take_tile<T>(memory, kRows, kDim);
  const auto weights = take_tile<T>(memory, kRows, kKeys);
  const auto grad_scores = take_tile<T>(memory, kRows, kKeys);

  const std::int64_t key = static_cast<std::int64_t>(blockIdx.x) * kKeys, batch = blockIdx.z;
  const int kv_head = static_cast<int>(blockIdx.y), group = p.heads / p.kv_heads;
  copy_tile<kKeys, kDim>(k, head_rows<T>(p.k, batch, key, kv_head, p.dim), p.keys - key, p.dim,
                         p.packed);
  copy_tile<kKeys, kDim>(v, head_rows<T>(p.v, batch, key, kv_head, p.dim), p.keys - key, p.dim,
                         p.packed);
  Strip<kDim / 16> grad_k, grad_v;
  grad_k.clear();
  grad_v.clear();
  const int strip = warp_of_thread() / 2 * 16, half = warp_of_thread() % 2;
  const std::int64_t start = first_row_that_sees(p, key) / kRows * kRows;
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head)
    for (std::int64_t first = start; first < p.rows; first += kRows) {
      const std::int64_t count = p.rows - first < kRows ? p.rows - first : kRows;
      if (p.segment_start.exists()) {
        std::int64_t begin, end;
        key_range(p, batch, first, count, scratch, begin, end);
        if (begin >= key + kKeys) continue;
      }
      __syncthreads();  // the tiles of the turn before are still read
      copy_tile<kRows, kDim>(q, head_rows<T>(p.q, batch, first, head, p.dim), count, p.dim,
                             p.packed);
      copy_tile<kRows, kDim>(grad_out, head_rows<T>(a.grad_out, batch, first, head, p.dim), count,
                             p.dim, p.packed);
      commit_copies();
      wait_copies<0>();
      __syncthreads();
      ScoreGradients<kKeys / 16> g;
      score_gradients<kDim>(g, a, q, grad_out, k, v, batch, head, first, key);
      for (int n = 0; n < kKeys / 16; ++n)
        for (int i = 0; i < 4; i += 2) {
          const int column = half * kKeys / 2 + n * 8 + tile_column(i);
          weights.store_pair(strip + strip_row(i), column, g.weight.tiles[n].sums[i],
                             g.weight.tiles[n].sums[i + 1]);
          grad_scores.store_pair(strip + strip_row(i), column, g.grad.tiles[n].sums[i],
                                 g.grad.tiles[n].sums[i + 1]);
        }
      __syncthreads();
      multiply<Transpose::yes, Transpose::no, kRows>(grad_v, weights, 0, strip, grad_out, 0,
                                                     half * kDim / 2);
      multiply<Transpose::yes, Transpose::no, kRows>(grad_k, grad_scores, 0, strip, q, 0,
                                                     half * kDim / 2);
    }
  for (int i = 0; i < 4; ++i) {
    const std::int64_t row = key + strip + strip_row(i);
    if (row >= p.keys) continue;
    const std::int64_t at_k = a.grad_k.at(batch, row, kv_head, p.dim);
    const std::int64_t at_v = a.grad_v.at(batch, row, kv_head, p.dim);
    for (int n = 0; n < kDim / 16; ++n) {
      const int column = half * kDim / 2 + n * 8 + tile_column(i);
      if (column >= p.dim) continue;
      a.grad_k.data[at_k + column] = from_float<T>(grad_k.tiles[n].sums[i] * p.scale);
      a.grad_v.data[at_v + column] = from_float<T>(grad_v.tiles[n].sums[i]);
    }
  }
}

}  // namespace

template <typename T, int kDim>
void launch_attention_backward(const AttentionBackward<T>& a, std::int64_t batch) {
  using Tiles = AttentionTiles<T, kDim>;
  const AttentionProblem<T>& p = a.problem;
  const std::int64_t count = batch * p.heads * p.rows;
  launch("attention_delta", {grid_for(count, 8), 256}, delta_kernel<T>, a, count);
  const std::size_t shared =
      shared_bytes_of<float>(Tiles::kThreads / kWarp) + 2 * tile_bytes<T>(Tiles::kKeys, kDim) +
      2 * tile_bytes<T>(Tiles::kRows, kDim) + 2 * tile_bytes<T>(Tiles::kRows, Tiles::kKeys);
  launch("attention_grad_keys",
         {dim3(static_cast<unsigned>(ceil_divide(p.keys, Tiles::kKeys)),
               static_cast<unsigned>(p.kv_heads), static_cast<unsigned>(batch)),
          Tiles::kThreads, shared},
         grad_keys_kernel<T, kDim>, a);
  launch_grad_queries<T, kDim>(a, batch);
}

template void launch_attention_backward<float, 32>(const AttentionBackward<float>&, std::int64_t);
template void launch_attention_backward<float, 64>(const AttentionBackward<float>&, std::int64_t);
template void launch_attention_backward<float, 128>(const AttentionBackward<float>&, std::int64_t);
template void launch_attention_backward<BFloat16, 32>(const AttentionBackward<BFloat16>&,
                                                      std::int64_t);
template void launch_attention_backward<BFloat16, 64>(const AttentionBackward<BFloat16>&,
                                                      std::int64_t);
template void launch_attention_backward<BFloat16, 128>(const AttentionBackward<BFloat16>&,
                                                       std::int64_t);

}  // namespace lectern::cuda
