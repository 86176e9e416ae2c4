// The pre-norm transformer block that the LM encoder and the decoder share:
//
//   x = x + attention(RMSNorm(x));  x = x + mlp(RMSNorm(x))
//
// (or with hyper-connections in place of the sums: nn/blocks/residual.h), with grouped-query
// attention, rotary positions, and either a SwiGLU or a mixture of experts.
#pragma once

#include "autograd/ops/attention.h"
#include "nn/blocks/residual.h"
#include "nn/forward_context.h"
#include "nn/parameter.h"

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

struct MoeArgs {
  std::int64_t routed_experts = 0, shared_experts = 0, top_k = 0, intermediate_size = 0;
  double scaling = 1.0;
  std::int64_t expert_rank = 0, expert_ranks = 1;  ///< which routed experts are in this process
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

/// down(silu(gate(x)) * up(x)); gate and up are one matrix.
class SwigluMlp {
 public:
  SwigluMlp(ParameterStore& store, const std::string& prefix, std::int64_t hidden_size,
            std::int64_t intermediate_size, double initializer_range);
  Variable forward(const Variable& x) const;

 private:
  Variable gate_up_, down_;
};

/// DeepSeek-MoE: top-k of the routed experts, weighted by their softmax values, plus the shared
/// experts as one SwiGLU (arXiv 2401.06066).
class MoeMlp {
 public:
  MoeMlp(ParameterStore& store, const std::string& prefix, std::int64_t layer,
         std::int64_t hidden_size, const MoeArgs& args, double initializer_range);
  /// x [B, T, C].
  Variable forward(const Variable& x, ForwardContext& context) const;

 private:
  std::int64_t layer_;
  MoeArgs args_;
  Variable gate_, gate_up_, down_;
  SwigluMlp shared_;
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
  using Part = std::function<Variable(const Variable&, ForwardContext&)>;
  /// part(x), of which only x is kept for backward when the context says so.
  Variable run(const Part& part, const Variable& x, ForwardContext& context) const;
  Variable attend(const Variable& x, const SequenceLayout& layout) const;
  Variable attend_cached(const Variable& x, const CacheSlot& slot) const;
  Variable feed_forward(const Variable& x, ForwardContext& context) const;

  BlockArgs args_;
  Variable input_norm_, qkv_, qkv_bias_, output_, post_norm_;
  std::optional<SwigluMlp> dense_;
  std::optional<MoeMlp> moe_;
  std::vector<Variable> parameters_;  ///< of attention and MLP
  ResidualConnection attention_residual_, mlp_residual_;
};

}  // namespace lectern
