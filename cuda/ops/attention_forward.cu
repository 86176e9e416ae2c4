// Attention forward with online softmax, one block a tile of query rows of one head.
#include "cuda/ops/attention_problem.h"

namespace lectern::cuda {
namespace {

/// Keys and values of tile t + 1 travel while tile t is computed.
constexpr int kStages = 2;

template <typename T, int kDim>
struct ForwardShape {
  static constexpr int kRows = AttentionTiles<T, kDim>::kRows,
                       kKeys = AttentionTiles<T, kDim>::kKeys;
  static constexpr int kWarps = kRows / 16, kThreads = kWarps * kWarp;

  static std::size_t shared_bytes(int relative_columns) {
    return shared_bytes_of<float>(kWarps) + tile_bytes<T>(kRows, kDim) +
           2 * tile_bytes<T>(kStages * kKeys, kDim) +
           (sizeof(T) == 2 ? 0 : tile_bytes<T>(kRows, kKeys)) +
           shared_bytes_of<float>(static_cast<std::size_t>(kRows * relative_columns));
  }
};

/// out += P V for a warp's strip. bf16: the sums of the scores are already laid out as the left
/// operand of the next product. f32: they go through shared memory.
template <int kDim, int kKeys>
__device__ inline void add_values(Strip<kDim / 8>& out, const Strip<kKeys / 8>& p,
                                  const SharedTile<BFloat16>&, const SharedTile<BFloat16>& v) {
  const int row = lane_of_thread() % 8, matrix = lane_of_thread() / 8;
  const int odd = matrix % 2 * 8, high = matrix / 2 * 8;
#pragma unroll
  for (int k = 0; k < kKeys; k += 16) {
    const float* left = p.tiles[k / 8].sums;
    const float* right = p.tiles[k / 8 + 1].sums;
    const TileA x{{pack_bf16(left[0], left[1]), pack_bf16(left[2], left[3]),
                   pack_bf16(right[0], right[1]), pack_bf16(right[2], right[3])}};
#pragma unroll
    for (int n = 0; n < kDim / 8; n += 2) {
      std::uint32_t parts[4];
      load_matrices<true>(parts, v.data, (k + odd + row) * v.stride + n * 8 + high);
      multiply_tile(out.tiles[n], x, TileB{{parts[0], parts[1]}});
      multiply_tile(out.tiles[n + 1], x, TileB{{parts[2], parts[3]}});
    }
  }
}

template <int kDim, int kKeys>
__device__ inline void add_values(Strip<kDim / 8>& out, const Strip<kKeys / 8>& p,
                                  const SharedTile<float>& scores, const SharedTile<float>& v) {
  const int first = warp_of_thread() * 16;
  for (int n = 0; n < kKeys / 8; ++n)
    for (int i = 0; i < 4; i += 2)
      scores.store_pair(first + strip_row(i), n * 8 + tile_column(i), p.tiles[n].sums[i],
                        p.tiles[n].sums[i + 1]);
  __syncwarp();
  multiply<Transpose::no, Transpose::no, kKeys>(out, scores, first, 0, v, 0, 0);
}

template <typename T, int kDim>
__global__ void __launch_bounds__(ForwardShape<T, kDim>::kThreads)
    attention_forward_kernel(AttentionForward<T> a) {
  using Shape = ForwardShape<T, kDim>;
  constexpr int kRows = Shape::kRows, kKeys = Shape::kKeys;
  const AttentionProblem<T>& p = a.problem;
  SharedMemory memory;
  const auto scratch = memory.take<float>(Shape::kWarps);
  const auto q = take_tile<T>(memory, kRows, kDim);
  const auto all_k = take_tile<T>(memory, kStages * kKeys, kDim);
  const auto all_v = take_tile<T>(memory, kStages * kKeys, kDim);
  const auto scores = sizeof(T) == 2 ? q : take_tile<T>(memory, kRows, kKeys);
  const int cells = p.relative.exists() ? p.grid_h + p.grid_w : 0;
  const auto relative = memory.take<float>(kRows * cells);

  // Late tiles see more keys under a causal mask: they begin first.
  const std::int64_t tile = gridDim.x - 1 - blockIdx.x, batch = blockIdx.z;
  const int head = static_cast<int>(blockIdx.y), kv_head = head / (p.heads / p.kv_heads);
  const std::int64_t first = tile * kRows;
  const std::int64_t count = p.rows - first < kRows ? p.rows - first : kRows;
  std::int64_t begin, end;
  key_range(p, batch, first, count, scratch, begin, end);
  const std::int64_t tiles = (end - begin + kKeys - 1) / kKeys;

  const auto copy_keys = [&](std::int64_t number) {
    // Rows from `end` on may hold anything: the rest of a cache, which nobody wrote.
    const std::int64_t key = begin + number * kKeys, left = end - key;
    const int stage = static_cast<int>(number % kStages) * kKeys;
    copy_tile<kKeys, kDim>(rows_of_tile(all_k, stage, kKeys),
                           head_rows<T>(p.k, batch, key, kv_head, p.dim), left, p.dim, p.packed);
    copy_tile<kKeys, kDim>(rows_of_tile(all_v, stage, kKeys),
                           head_rows<T>(p.v, batch, key, kv_head, p.dim), left, p.dim, p.packed);
  };
  copy_tile<kRows, kDim>(q, head_rows<T>(p.q, batch, first, head, p.dim), count, p.dim, p.packed);
  copy_keys(0);
  commit_copies();
  const std::int64_t row_of_scores = (batch * p.heads + head) * p.rows + first;
  for (int i = static_cast<int>(threadIdx.x); i < count * cells; i += Shape::kThreads)
    relative[i] = p.relative[row_of_scores * cells + i];

  const int strip = warp_of_thread() * 16;
  std::int64_t row_begin[2], row_end[2];
  for (int half = 0; half < 2; ++half) {
    const std::int64_t row = first + strip + strip_row(2 * half);
    row_begin[half] = row < p.rows ? p.key_begin(batch, row) : 0;
    row_end[half] = row < p.rows ? p.key_end(batch, row) : 0;
  }
  Strip<kDim / 8> out;
  out.clear();
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  for (std::int64_t number = 0; number < tiles; ++number) {
    if (number + 1 < tiles) copy_keys(number + 1);
    commit_copies();
    wait_copies<1>();
    __syncthreads();
    const int stage = static_cast<int>(number % kStages) * kKeys;
    const std::int64_t key = begin + number * kKeys;
    Strip<kKeys / 8> s;
    s.clear();
    multiply<Transpose::no, Transpose::yes, kDim>(s, q, strip, 0, all_k, stage, 0);
    float high[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = n * 8 + tile_column(i);
        const int at = (strip + strip_row(i)) * cells;
        const float score =
            finish_score(p, s.tiles[n].sums[i], key + column, row_begin[i / 2], row_end[i / 2],
                         [&](int entry) -> float { return relative[at + entry]; });
        s.tiles[n].sums[i] = score;
        high[i / 2] = fmaxf(high[i / 2], score);
      }
    float shrink[2], base[2];
    for (int half = 0; half < 2; ++half) {
      // The four lanes of a row.
      high[half] = fmaxf(high[half], __shfl_xor_sync(kAllLanes, high[half], 1));
      high[half] = fmaxf(high[half], __shfl_xor_sync(kAllLanes, high[half], 2));
      high[half] = fmaxf(high[half], largest[half]);
      base[half] = high[half] == -INFINITY ? 0.0f : high[half];  // nothing seen yet
      shrink[half] = exp2_fast(largest[half] - base[half]);
      largest[half] = high[half];
      sum[half] *= shrink[half];
    }
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float e = exp2_fast(s.tiles[n].sums[i] - base[i / 2]);
        s.tiles[n].sums[i] = e;
        sum[i / 2] += e;
      }
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) out.tiles[n].sums[i] *= shrink[i / 2];
    add_values<kDim, kKeys>(out, s, scores, rows_of_tile(all_v, stage, kKeys));
    __syncthreads();  // the stage is filled again in the next turn
  }
  for (int half = 0; half < 2; ++half) {
    sum[half] += __shfl_xor_sync(kAllLanes, sum[half], 1);
    sum[half] += __shfl_xor_sync(kAllLanes, sum[half], 2);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::int64_t row = first + strip + strip_row(i);
    if (row >= p.rows) continue;
    const float inverse = 1.0f / sum[i / 2];
    const std::int64_t at = a.out.at(batch, row, head, p.dim);
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      const int column = n * 8 + tile_column(i);
      if (column < p.dim) a.out.data[at + column] = from_float<T>(out.tiles[n].sums[i] * inverse);
    }
    if (a.log_sum_exp.exists() && i % 2 == 0 && lane_of_thread() % 4 == 0)
      a.log_sum_exp[row_of_scores + row - first] = largest[i / 2] * kLn2 + logf(sum[i / 2]);
  }
}

}  // namespace

template <typename T, int kDim>
void launch_attention_forward(const AttentionForward<T>& arguments, std::int64_t batch) {
  using Shape = ForwardShape<T, kDim>;
  const AttentionProblem<T>& p = arguments.problem;
  launch("attention",
         {dim3(static_cast<unsigned>(ceil_divide(p.rows, Shape::kRows)),
               static_cast<unsigned>(p.heads), static_cast<unsigned>(batch)),
          Shape::kThreads, Shape::shared_bytes(p.relative.exists() ? p.grid_h + p.grid_w : 0)},
         attention_forward_kernel<T, kDim>, arguments);
}

template void launch_attention_forward<float, 32>(const AttentionForward<float>&, std::int64_t);
template void launch_attention_forward<float, 64>(const AttentionForward<float>&, std::int64_t);
template void launch_attention_forward<float, 128>(const AttentionForward<float>&, std::int64_t);
template void launch_attention_forward<BFloat16, 32>(const AttentionForward<BFloat16>&,
                                                     std::int64_t);
template void launch_attention_forward<BFloat16, 64>(const AttentionForward<BFloat16>&,
                                                     std::int64_t);
template void launch_attention_forward<BFloat16, 128>(const AttentionForward<BFloat16>&,
                                                      std::int64_t);

}  // namespace lectern::cuda
