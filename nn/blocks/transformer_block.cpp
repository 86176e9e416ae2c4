#include "nn/blocks/transformer_block.h"

#include "autograd/ops/elementwise.h"
#include "autograd/ops/exchanged_experts.h"
#include "autograd/ops/experts.h"
#include "autograd/ops/layout.h"
#include "autograd/ops/linear.h"
#include "autograd/ops/rms_norm.h"
#include "autograd/ops/rope.h"
#include "autograd/ops/router.h"
#include "autograd/ops/swiglu.h"
#include "nn/blocks/block_graph.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace lectern {
namespace {

/// Router seams of the fixtures: logits, and the chosen experts with their weights, sorted by
/// weight.
void record_router_seams(ForwardContext& context, std::int64_t layer, const Shape& leading,
                         const RouterOutput& routed) {
  if (!context.listens()) return;
  const auto name = [&](const char* what) { return fmt::format("moe.layer{}.{}", layer, what); };
  const auto shaped = [&](const Tensor& tensor) {
    return tensor.view({leading[0], leading[1], tensor.dim(1)});
  };
  context.seam(name("logits"), shaped(routed.logits.value()));
  context.seam(name("topk_weight"), shaped(routed.weights.value()));
  context.seam(name("topk_index"), shaped(routed.indices));
}

/// Copies rows [B, T, W] to cache rows lengths[b] .. lengths[b] + T - 1.
void append_rows(const Tensor& cache, const Tensor& rows, const Tensor& lengths) {
  for (std::int64_t b = 0; b < rows.dim(0); ++b) {
    const std::int64_t at = lengths.data<std::int32_t>()[b];
    cache.slice(0, b, b + 1).slice(1, at, at + rows.dim(1)).copy_from(rows.slice(0, b, b + 1));
  }
}

}  // namespace

SwigluMlp::SwigluMlp(ParameterStore& store, const std::string& prefix, std::int64_t hidden_size,
                     std::int64_t intermediate_size, double initializer_range) {
  const std::int64_t rows = intermediate_size;
  const auto normal = Initialiser::normal(initializer_range);
  gate_up_ = store.add_matrix(prefix + "gate_up_proj.weight", {2 * rows, hidden_size}, normal,
                              {{prefix + "gate_proj.weight", 0, rows, -1},
                               {prefix + "up_proj.weight", rows, 2 * rows, -1}});
  down_ = store.add_matrix(prefix + "down_proj.weight", {hidden_size, rows}, normal);
}

Variable SwigluMlp::forward(const Variable& x) const {
  return linear(swiglu(linear(x, gate_up_)), down_);
}

MoeMlp::MoeMlp(ParameterStore& store, const std::string& prefix, std::int64_t layer,
               std::int64_t hidden_size, const MoeArgs& args, double initializer_range)
    : layer_(layer),
      args_(args),
      shared_(store, prefix + "shared_experts.", hidden_size,
              args.shared_experts * args.intermediate_size, initializer_range) {
  const std::int64_t experts = args.routed_experts, rows = args.intermediate_size;
  const auto normal = Initialiser::normal(initializer_range);
  gate_ = store.add(prefix + "gate.weight", {args.routed_experts, hidden_size}, normal);
  std::vector<ParameterPart> gate_up_parts, down_parts;
  for (std::int64_t e = 0; e < experts; ++e) {
    const std::string expert = fmt::format("{}experts.{}.", prefix, e);
    gate_up_parts.push_back({expert + "gate_proj.weight", 0, rows, e});
    gate_up_parts.push_back({expert + "up_proj.weight", rows, 2 * rows, e});
    down_parts.push_back({expert + "down_proj.weight", 0, hidden_size, e});
  }
  const StackShare share{args.expert_rank, args.expert_ranks};
  gate_up_ = store.add_stack(prefix + "experts.gate_up_proj", {experts, 2 * rows, hidden_size},
                             normal, gate_up_parts, share);
  down_ = store.add_stack(prefix + "experts.down_proj", {experts, hidden_size, rows}, normal,
                          down_parts, share);
}

Variable MoeMlp::forward(const Variable& x, ForwardContext& context) const {
  const std::int64_t batch = x.dim(0), length = x.dim(1), width = x.dim(2);
  const Variable tokens = view(x, {batch * length, width});
  RouterArgs router_args;
  router_args.top_k = args_.top_k;
  router_args.scaling = args_.scaling;
  if (const auto bias = context.selection_bias.find(layer_); bias != context.selection_bias.end())
    router_args.selection_bias = bias->second;
  const RouterOutput routed = router(tokens, gate_, router_args);
  record_router_seams(context, layer_, x.shape(), routed);
  context.expert_counts[layer_] = routed.counts;
  if (context.want_balance_loss)
    context.balance_losses.push_back(
        balance_loss(routed.probabilities, routed.indices, args_.routed_experts, args_.top_k));
  Variable mixed, shared;
  if (args_.expert_ranks > 1) {
    if (context.expert_exchange == nullptr)
      fail<Error>(fmt::format("MoE layer {}: its experts are on {} ranks and there is no exchange",
                              layer_, args_.expert_ranks));
    mixed = exchanged_experts(tokens, routed.weights, routed.indices, gate_up_, down_,
                              args_.routed_experts, *context.expert_exchange,
                              [&] { shared = shared_.forward(tokens); });
  } else {
    mixed = experts(tokens, routed.weights, routed.indices, gate_up_, down_);
    shared = shared_.forward(tokens);
  }
  return view(add(mixed, shared), {batch, length, width});
}

TransformerBlock::TransformerBlock(ParameterStore& store, const std::string& prefix,
                                   std::int64_t layer, const BlockArgs& args,
                                   const std::optional<MoeArgs>& moe)
    : args_(args),
      attention_residual_(store, prefix + "attn_hc.", args.residual, args.hidden_size, 2 * layer),
      mlp_residual_(store, prefix + "ffn_hc.", args.residual, args.hidden_size, 2 * layer + 1) {
  const std::size_t first_parameter = store.parameters().size();
  const std::int64_t width = args.hidden_size;
  const std::int64_t query_rows = args.heads * args.head_dim;
  const std::int64_t key_rows = args.kv_heads * args.head_dim;
  const std::int64_t rows = query_rows + 2 * key_rows;
  const auto normal = Initialiser::normal(args.initializer_range);
  const std::string attention = prefix + "self_attn.";
  const auto parts = [&](const char* tensor) {
    return std::vector<ParameterPart>{
        {attention + "q_proj." + tensor, 0, query_rows, -1},
        {attention + "k_proj." + tensor, query_rows, query_rows + key_rows, -1},
        {attention + "v_proj." + tensor, query_rows + key_rows, rows, -1}};
  };
  input_norm_ = store.add(prefix + "input_layernorm.weight", {width}, Initialiser::ones());
  qkv_ = store.add_matrix(attention + "qkv_proj.weight", {rows, width}, normal, parts("weight"));
  if (args.qkv_bias)
    qkv_bias_ = store.add(attention + "qkv_proj.bias", {rows}, Initialiser::zeros(), parts("bias"));
  output_ = store.add_matrix(attention + "o_proj.weight", {width, query_rows}, normal);
  post_norm_ = store.add(prefix + "post_attention_layernorm.weight", {width}, Initialiser::ones());
  if (moe) {
    moe_.emplace(store, prefix + "mlp.", layer, width, *moe, args.initializer_range);
  } else {
    dense_.emplace(store, prefix + "mlp.", width, args.intermediate_size, args.initializer_range);
  }
  for (std::size_t i = first_parameter; i < store.parameters().size(); ++i)
    parameters_.push_back(store.parameters()[i].variable);
}

AttentionArgs TransformerBlock::attention_args() const {
  AttentionArgs out;
  out.heads = args_.heads;
  out.kv_heads = args_.kv_heads;
  out.head_dim = args_.head_dim;
  out.scale = 1.0 / std::sqrt(static_cast<double>(args_.head_dim));
  return out;
}

Variable TransformerBlock::attend(const Variable& x, const SequenceLayout& layout) const {
  AttentionArgs args = attention_args();
  args.mask = layout.mask;
  args.prefix = layout.prefix;
  args.segment_start = layout.segment_start;
  const Variable qkv = linear(rms_norm(x, input_norm_, args_.rms_norm_eps), qkv_, qkv_bias_);
  const Variable rotated = rope(qkv, {.heads = args_.heads,
                                      .kv_heads = args_.kv_heads,
                                      .head_dim = args_.head_dim,
                                      .theta = args_.rope_theta,
                                      .positions = layout.positions});
  return linear(attention(rotated, args), output_);
}

Variable TransformerBlock::feed_forward(const Variable& x, ForwardContext& context) const {
  const Variable normed = rms_norm(x, post_norm_, args_.rms_norm_eps);
  return moe_ ? moe_->forward(normed, context) : dense_->forward(normed);
}

Streams TransformerBlock::forward(const Streams& x, const SequenceLayout& layout,
                                  ForwardContext& context) const {
  const BlockPass attention = [this, layout](const Variable& in, ForwardContext&) {
    return attend(in, layout);
  };
  const BlockPass mlp = [this](const Variable& in, ForwardContext& inner) {
    return feed_forward(in, inner);
  };
  if (args_.residual.is_plain()) {  // one segment for the block: only its input is kept
    const BlockPass block = [this, attention, mlp](const Variable& in, ForwardContext& inner) {
      const Variable mixed = add(in, attention(in, inner));
      return add(mixed, mlp(mixed, inner));
    };
    return Streams(run_block(block, x.graph, parameters_, context));
  }
  const auto part = [&](const BlockPass& pass) {
    return [&](const Variable& in) { return run_block(pass, in, parameters_, context); };
  };
  return mlp_residual_.around(attention_residual_.around(x, part(attention), context), part(mlp),
                              context);
}

Variable TransformerBlock::attend_cached(const Variable& x, const CacheSlot& slot) const {
  const std::int64_t batch = x.dim(0), length = x.dim(1);
  const std::int64_t query_columns = args_.heads * args_.head_dim;
  const std::int64_t key_columns = args_.kv_heads * args_.head_dim;
  Tensor positions = Tensor::empty({batch, length}, DType::i32);
  for (std::int64_t b = 0; b < batch; ++b)
    std::iota(positions.data<std::int32_t>() + b * length,
              positions.data<std::int32_t>() + (b + 1) * length,
              slot.lengths.data<std::int32_t>()[b]);

  const Variable qkv = linear(rms_norm(x, input_norm_, args_.rms_norm_eps), qkv_, qkv_bias_);
  const Tensor rotated = rope(qkv, {.heads = args_.heads,
                                    .kv_heads = args_.kv_heads,
                                    .head_dim = args_.head_dim,
                                    .theta = args_.rope_theta,
                                    .positions = positions})
                             .value();
  const std::int64_t keys_at = query_columns, values_at = query_columns + key_columns;
  append_rows(slot.layer->keys, rotated.slice(2, keys_at, values_at), slot.lengths);
  append_rows(slot.layer->values, rotated.slice(2, values_at, values_at + key_columns),
              slot.lengths);
  const Tensor mixed = attention_cached(rotated.slice(2, 0, query_columns), slot.layer->keys,
                                        slot.layer->values, attention_args(), slot.lengths);
  return linear(Variable(mixed), output_);
}

Streams TransformerBlock::decode(const Streams& x, const CacheSlot& slot,
                                 ForwardContext& context) const {
  const NoGrad off;
  const Streams mixed = attention_residual_.around(
      x, [&](const Variable& in) { return attend_cached(in, slot); }, context);
  return mlp_residual_.around(
      mixed, [&](const Variable& in) { return feed_forward(in, context); }, context);
}

}  // namespace lectern
