// The pre-norm transformer block that the LM encoder and the decoder share:
//
//   x = x + attention(RMSNorm(x));  x = x + mlp(RMSNorm(x))
//
// (or with hyper-connections in place of the sums: nn/blocks/residual.h), with grouped-query
// attention, rotary positions, and either a SwiGLU or a mixture of experts.
#pragma once

#include "autograd/ops/attention.h"
#include "nn/blocks/mixture_of_experts.h"
#include "nn/blocks/residual.h"
#include "nn/blocks/swiglu_mlp.h"
#include "nn/forward_context.h"
#include "nn/linear.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lectern {

struct BlockArgs {
  std::int64_t hidden_size = 0;
  std::int64_t heads = 0, kv_heads = 0, head_dim = 0;
  std::int64_t intermediate_size = 0;
  double rms_norm_eps = 1e-6;
  double rope_theta = 1e4;
  double initializer_range = 0.02;
  bool qkv_bias = false;
  ResidualConfig residual;
};

/// Which keys each query sees, and where its rotary position starts.
struct SequenceLayout {
  MaskKind mask = MaskKind::causal;
  std::int64_t prefix = 0;  ///< MaskKind::prefix_causal: rows that see each other
  Tensor segment_start;     ///< i32 [B, T], packed samples; may be undefined
  Tensor positions;         ///< i32 [B, T]; undefined means 0..T-1
};

/// Keys and values of the tokens already decoded, one pair a layer.
struct LayerCache {
  Tensor keys, values;  ///< [B, capacity, kv_heads * head_dim]
};
struct CacheSlot {
  LayerCache* layer = nullptr;
  Tensor lengths;  ///< i32 [B]: tokens of each sequence already in the cache
};

class TransformerBlock {
 public:
  /// `moe` empty: a dense block. `layer` numbers the MoE seams.
  TransformerBlock(ParameterStore& store, const std::string& prefix, std::int64_t layer,
                   const BlockArgs& args, const std::optional<MoeArgs>& moe = {});

  /// x [B, T, C], or streams [B, T, n, C]; the result is the same. With context.recompute_blocks
  /// only x is kept for backward; of streams, the inputs and outputs of attention and MLP.
  Streams forward(const Streams& x, const SequenceLayout& layout, ForwardContext& context) const;
  /// One step of generation: x are the tokens after `slot.lengths`; keys and values are appended to
  /// the cache. Records no graph.
  Streams decode(const Streams& x, const CacheSlot& slot, ForwardContext& context) const;

 private:
  AttentionArgs attention_args() const;
  Variable attend(const Variable& x, const SequenceLayout& layout) const;
  Variable attend_cached(const Variable& x, const CacheSlot& slot) const;
  Variable feed_forward(const Variable& x, ForwardContext& context) const;

  BlockArgs args_;
  Variable input_norm_, post_norm_;
  Linear qkv_, output_;
  std::optional<SwigluMlp> dense_;
  std::optional<MoeMlp> moe_;
  std::vector<Parameter> parameters_;  ///< of attention and MLP
  ResidualConnection attention_residual_, mlp_residual_;
};

}  // namespace lectern
