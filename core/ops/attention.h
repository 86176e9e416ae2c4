// attention: scaled dot-product attention over packed projections, in tiles with online softmax.
//
//   score(i, j) = scale q_i . k_j                       for j in [begin(i), end(i)), else -infinity
//               + q_i . table_h[y_i - y_j + grid_h - 1] + q_i . table_w[x_i - x_j + grid_w - 1]
//   out_i       = sum_j softmax_j(score(i, j)) v_j
//
// qkv      [B, T, (H + 2 G) D] f32 or f64, contiguous; column blocks q: H D | k: G D | v: G D.
//          Query head h reads key/value head h / (H / G); H = heads, G = kv_heads, D = head_dim.
// table_h  [2 grid_h - 1, D], table_w [2 grid_w - 1, D], both or neither: decomposed relative
//          positions of a grid with T = grid_h grid_w, token i at (y, x) = (i / grid_w, i %
//          grid_w). They multiply the UNSCALED query. Only with the full mask.
// out      [B, T, H D], log_sum_exp [B, H, T] (natural logarithm), both of qkv's dtype.
//
// Every mask is one interval of keys a row, so tiles outside it are never computed and neither mask
// nor scores ever exist in full: memory beyond the outputs is O(T D) a head.
// Saved for backward: qkv, out, log_sum_exp. Backward recomputes P = exp(score - log_sum_exp):
//   grad_v = P^T grad_out, grad_score = P (grad_out V^T - rowsum(grad_out out)),
//   grad_q = scale grad_score K + the tables' share, grad_k = scale grad_score^T Q.
// Results do not depend on the number of threads. Accumulates in the dtype of qkv.
// Throws ShapeError, DTypeError (dtype not f32/f64), ConfigError (heads, scale, prefix, segments).
// B = 0 or T = 0 gives empty results.
// Source: Dao, "FlashAttention-2" (2023) for the tiling; ViTDet/SAM for the relative positions.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

#include <cstdint>

namespace lectern {

enum class MaskKind : std::uint8_t {
  full,           ///< every row sees every key
  prefix_causal,  ///< row i < prefix sees [0, prefix); row i >= prefix sees [0, i]
  causal,         ///< row i sees [0, i], or [segment_start, i]
};

struct AttentionArgs {
  std::int64_t heads = 1;
  std::int64_t kv_heads = 1;
  std::int64_t head_dim = 1;
  double scale = 1.0;  ///< positive; usually 1/sqrt(head_dim)
  MaskKind mask = MaskKind::full;
  std::int64_t prefix = 0;  ///< prefix_causal only
  /// causal only, optional: i32 [B, T], the first key that row i sees (start of its sample in a
  /// packed row); 0 <= segment_start[b, i] <= i.
  Tensor segment_start{};
  /// f32 only: round what goes into products (q, k, v, probabilities and the gradients of both
  /// sides) to bf16; softmax and sums stay f32. Give backward what forward had.
  bool rounded = false;
};

struct AttentionResult {
  Tensor out;
  Tensor log_sum_exp;
};

AttentionResult attention_forward(const Tensor& qkv, const AttentionArgs& args,
                                  const Tensor& table_h = {}, const Tensor& table_w = {});

struct AttentionGradients {
  Tensor grad_qkv;
  Tensor grad_table_h;  ///< undefined without tables
  Tensor grad_table_w;
};

AttentionGradients attention_backward(const Tensor& grad_out, const Tensor& qkv,
                                      const AttentionResult& saved, const AttentionArgs& args,
                                      const Tensor& table_h = {}, const Tensor& table_w = {});

/// Generation: row i of the new block sees keys [0, past + i] of the caches, whose rows
/// past..past + Tq - 1 already hold the new keys and values. q [B, Tq, H D] and the caches
/// [B, Tmax, G D] need unit stride in the last dimension only; they have q's dtype, or are bf16
/// with f32 q. args.mask, prefix and segment_start are not used. Returns [B, Tq, H D]. No gradient.
Tensor attention_cached(const Tensor& q, const Tensor& key_cache, const Tensor& value_cache,
                        const AttentionArgs& args, std::int64_t past);
/// The same with one past length a sequence: i32 [B].
Tensor attention_cached(const Tensor& q, const Tensor& key_cache, const Tensor& value_cache,
                        const AttentionArgs& args, const Tensor& past);

struct AttentionKernels {
  void (*forward)(const Tensor& qkv, const AttentionArgs& args, const Tensor& table_h,
                  const Tensor& table_w, const AttentionResult& result);
  void (*backward)(const Tensor& grad_out, const Tensor& qkv, const AttentionResult& saved,
                   const AttentionArgs& args, const Tensor& table_h, const Tensor& table_w,
                   const AttentionGradients& gradients);
  /// `past` is i32 [B].
  void (*cached)(const Tensor& q, const Tensor& key_cache, const Tensor& value_cache,
                 const AttentionArgs& args, const Tensor& past, const Tensor& out);
};
KernelTable<AttentionKernels>& attention_table();

}  // namespace lectern
