// low_rank: linear layers and matrices with low-rank pairs, several matrices lying in one (LoRA,
// arXiv 2106.09685, equation 3).
//
//   pair i changes rows [begin_i, end_i) of a weight W [N, K]:
//   W[rows of i] + scale_i B_i A_i,      A_i [r, K],      B_i [end_i - begin_i, r]
//
// a [pairs * r, K] holds the A_i one after the other, b [sum of rows, r] the B_i. Of a stack of
// weights [E, N, K] every matrix has pairs in the same rows: a [E, pairs * r, K], b [E, sum, r].
//
// A layer multiplies by the pairs apart and never makes the sum:
//   y[..., rows of i] = x W_i^T + bias_i + scale_i (x A_i^T) B_i^T
// Gradients, with g_i the columns of grad_y and u_i = scale_i x A_i^T:
//   grad_B_i = g_i^T u_i      grad_A_i = (scale_i g_i B_i)^T x
//   grad_x   = grad_y W + sum over i of scale_i g_i B_i A_i
// Saved for backward: x, and u [.., pairs * r]; W by reference.
#pragma once

#include "autograd/variable.h"

#include <cstdint>
#include <vector>

namespace lectern {

/// The rows of a weight that one pair changes.
struct LowRankRows {
  std::int64_t begin = 0, end = 0;
  double scale = 1.0;
};

/// Pairs of one rank, their rows rising and apart.
struct LowRankPairs {
  Variable a, b;  ///< f32 (f64 for tests)
  std::int64_t rank = 0;
  std::vector<LowRankRows> rows;

  bool defined() const { return a.defined(); }
};

/// linear() with pairs; x [..., K], weight [N, K], bias [N] or undefined -> [..., N]. The pairs
/// read `pair_x`, which is x itself or what dropout left of it. In bf16 training all products take
/// operands rounded to bf16. While all B are 0 the result is that of linear(), bit for bit.
Variable low_rank_linear(const Variable& x, const Variable& pair_x, const Variable& weight,
                         const Variable& bias, const LowRankPairs& pairs);

/// The weight, or stack, with its pairs added: a copy in f32 (f64 for tests). Gradients to the
/// weight as they are, and to the pairs: grad_A_i = scale_i B_i^T G_i, grad_B_i = scale_i G_i
/// A_i^T.
Variable low_rank_merged(const Variable& weight, const LowRankPairs& pairs);

}  // namespace lectern
