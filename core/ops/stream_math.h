// From the products of one token's streams with the projection to its mappings, and back; in
// registers, for a number or a register of tokens, as sinkhorn_math.h. Definition:
// core/ops/stream_read.h.
//
// Rows are numbered pre 0..N-1 | post N..2N-1 | res 2N.. (row-major); hc keeps the product of row
// (i, j) with stream j only, so its raw products are [stream][pre, post, res 0..N-1].
#pragma once

#include "core/ops/sinkhorn_math.h"

namespace lectern {

/// What the rows of a projection become.
///   mhc    2N gates and N^2 logits of Sinkhorn
///   exact  2N gates and N! logits of a softmax over permutation matrices (N <= 4)
///   hc     2N + N^2 values, tanh, of each stream on its own
///   head   N gates that merge the streams
enum class StreamMapping { mhc, exact, hc, head };

namespace stream_math {

constexpr int factorial(int n) { return n <= 1 ? 1 : n * factorial(n - 1); }
constexpr int kMaxExactStreams = 4;

/// Rows of `base`, and of the mapping's logits.
constexpr int mapping_rows(StreamMapping mapping, int n) {
  switch (mapping) {
    case StreamMapping::exact:
      return 2 * n + (n <= kMaxExactStreams ? factorial(n) : 0);
    case StreamMapping::head:
      return n;
    default:
      return 2 * n + n * n;
  }
}
/// Rows of the projection `fn`.
constexpr int projection_rows(StreamMapping mapping, int n) {
  return mapping == StreamMapping::hc ? n + 2 : mapping_rows(mapping, n);
}
/// Norms of one token: of the flattened streams, or of each.
constexpr int norm_count(StreamMapping mapping, int n) {
  return mapping == StreamMapping::hc ? n : 1;
}
/// Where the raw product of a row is, and which norm belongs to it.
constexpr int raw_product(StreamMapping mapping, int n, int row) {
  if (mapping != StreamMapping::hc) return row;
  if (row < 2 * n) return row % n * (n + 2) + row / n;
  return (row - 2 * n) % n * (n + 2) + 2 + (row - 2 * n) / n;
}
constexpr int norm_of_row(StreamMapping mapping, int n, int row) {
  return mapping == StreamMapping::hc ? row % n : 0;
}
/// 0 pre, 1 post, 2 res: which entry of `scale`.
constexpr int group_of_row(int n, int row) { return row < 2 * n ? row / n : 2; }

/// 1 / rms of `count` numbers whose squares sum to `squares`.
template <typename V>
LECTERN_HOST_DEVICE inline V inverse_rms(StreamConvention convention, V squares, V count) {
  constexpr double kEpsilon = 1e-6;
  const V mean = squares / count;
  if (convention == StreamConvention::megatron) return V(1) / (square_root(mean) + V(kEpsilon));
  return V(1) / square_root(mean + V(kEpsilon));
}
/// c with grad_x = c * x for a gradient of inverse_rms.
template <typename V>
LECTERN_HOST_DEVICE inline V inverse_rms_gradient(StreamConvention convention, V squares, V count,
                                                  V inverse, V grad) {
  if (convention != StreamConvention::megatron) return -grad * inverse * inverse * inverse / count;
  // grad / rms first: both shrink with x. A token of zeros has no direction.
  const V rms = square_root(squares / count);
  const V alive = is_above(rms, V(0));
  return -(grad / (rms + (V(1) - alive))) * alive * inverse * inverse / count;
}

template <typename V>
LECTERN_HOST_DEVICE inline V sigmoid(V x) {
  return V(1) / (V(1) + exponential(-x));
}

/// Gates: pre and head sigmoid + epsilon, post 2 sigmoid.
constexpr double pre_epsilon(StreamMapping mapping, StreamConvention convention) {
  return mapping == StreamMapping::head || convention == StreamConvention::deepseek_v4 ? 1e-6 : 0.0;
}

/// Column of row i in the k-th permutation of N things, in lexicographic order; the 0th is the
/// identity.
constexpr int permuted(int n, int k, int i) {
  int taken = 0, block = factorial(n - 1), rest = k, column = 0;
  for (int row = 0; row <= i; ++row) {
    int skip = rest / block;
    rest %= block;
    for (column = 0;; ++column) {
      if ((taken >> column & 1) != 0) continue;
      if (skip-- == 0) break;
    }
    taken |= 1 << column;
    if (row < n - 1) block /= n - 1 - row;
  }
  return column;
}

/// logits [N!] -> their softmax in place, and the mean of the permutation matrices under it.
template <int N, typename V>
LECTERN_HOST_DEVICE inline void permutation_mix(V* logits, V* matrix) {
  constexpr int kCount = factorial(N);
  V top = logits[0], sum(0);
  for (int k = 1; k < kCount; ++k) top = maximum(top, logits[k]);
  for (int k = 0; k < kCount; ++k) {
    logits[k] = exponential(logits[k] - top);
    sum += logits[k];
  }
  for (int k = 0; k < N * N; ++k) matrix[k] = V(0);
  for (int k = 0; k < kCount; ++k) {
    logits[k] = logits[k] / sum;
    for (int i = 0; i < N; ++i) matrix[i * N + permuted(N, k, i)] += logits[k];
  }
}
/// weights: the softmax -> gradient of the logits.
template <int N, typename V>
LECTERN_HOST_DEVICE inline void permutation_mix_gradient(const V* weights, const V* grad_matrix,
                                                         V* grad_logits) {
  constexpr int kCount = factorial(N);
  V mean(0);
  for (int k = 0; k < kCount; ++k) {
    grad_logits[k] = V(0);
    for (int i = 0; i < N; ++i) grad_logits[k] += grad_matrix[i * N + permuted(N, k, i)];
    mean += weights[k] * grad_logits[k];
  }
  for (int k = 0; k < kCount; ++k) grad_logits[k] = weights[k] * (grad_logits[k] - mean);
}

}  // namespace stream_math
}  // namespace lectern
