// What the two passes of attention's backward share. Private to this room.
#pragma once

#include "cuda/ops/attention_problem.h"

namespace lectern::cuda {

/// A warp's strip of attention weights and of the gradient of the scores (before the scale).
template <int kTiles>
struct ScoreGradients {
  Strip<kTiles> weight, grad;
};

template <typename T>
__device__ inline std::int64_t first_row_that_sees(const AttentionProblem<T>& p, std::int64_t key) {
  if (p.mask == MaskKind::full || (p.mask == MaskKind::prefix_causal && key < p.prefix)) return 0;
  return key;
}

/// weight = exp(score - log_sum_exp), grad = weight * (grad_out . v - delta) for the query rows
/// from `first` (tiles q and grad_out) and the keys from `key` (tiles k and v). Of the block's
/// warps, number 2 r + c does strip r of 16 rows and half c of the keys. Zero where a row sees no
/// key.
template <int kDim, typename T, int kTiles>
__device__ inline void score_gradients(ScoreGradients<kTiles>& g, const AttentionBackward<T>& a,
                                       const SharedTile<T>& q, const SharedTile<T>& grad_out,
                                       const SharedTile<T>& k, const SharedTile<T>& v,
                                       std::int64_t batch, int head, std::int64_t first,
                                       std::int64_t key) {
  const AttentionProblem<T>& p = a.problem;
  const int strip = warp_of_thread() / 2 * 16, begin_column = warp_of_thread() % 2 * kTiles * 8;
  g.weight.clear();
  g.grad.clear();
  multiply<Transpose::no, Transpose::yes, kDim>(g.weight, q, strip, 0, k, begin_column, 0);
  multiply<Transpose::no, Transpose::yes, kDim>(g.grad, grad_out, strip, 0, v, begin_column, 0);
  const int cells = p.relative.exists() ? p.grid_h + p.grid_w : 0;
  for (int half = 0; half < 2; ++half) {
    const std::int64_t row = first + strip + strip_row(2 * half);
    const bool inside = row < p.rows;
    const std::int64_t at = (batch * p.heads + head) * p.rows + (inside ? row : 0);
    const std::int64_t begin = inside ? p.key_begin(batch, row) : 0;
    const std::int64_t end = inside ? p.key_end(batch, row) : 0;
    const float shift = a.log_sum_exp[at] * kLog2E, delta = a.delta[at];
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        const std::int64_t column = key + begin_column + n * 8 + tile_column(i);
        const float score =
            finish_score(p, g.weight.tiles[n].sums[i], column, begin, end,
                         [&](int entry) -> float { return p.relative[at * cells + entry]; });
        const float weight = exp2_fast(score - shift);
        g.weight.tiles[n].sums[i] = weight;
        g.grad.tiles[n].sums[i] = weight * (g.grad.tiles[n].sums[i] - delta);
      }
  }
}

/// The gradient of q, and with relative positions grad_relative.
template <typename T, int kDim>
void launch_grad_queries(const AttentionBackward<T>& arguments, std::int64_t batch);

}  // namespace lectern::cuda
