#include "nn/blocks/transformer_block.h"

#include "autograd/ops/elementwise.h"
#include "autograd/ops/rms_norm.h"
#include "autograd/ops/rope.h"
#include "nn/blocks/block_graph.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace lectern {
namespace {

/// Copies rows [B, T, W] to cache rows lengths[b] .. lengths[b] + T - 1.
void append_rows(const Tensor& cache, const Tensor& rows, const Tensor& lengths) {
  for (std::int64_t b = 0; b < rows.dim(0); ++b) {
    const std::int64_t at = lengths.data<std::int32_t>()[b];
    cache.slice(0, b, b + 1).slice(1, at, at + rows.dim(1)).copy_from(rows.slice(0, b, b + 1));
  }
}

}  // namespace

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
  const auto normal = Initialiser::normal(args.initializer_range);
  const std::string attention = prefix + "self_attn.";
  input_norm_ = store.add(prefix + "input_layernorm.weight", {width}, Initialiser::ones());
  qkv_ = Linear(store, attention + "qkv_proj",
                {{attention + "q_proj", query_rows},
                 {attention + "k_proj", key_rows},
                 {attention + "v_proj", key_rows}},
                width, normal, args.qkv_bias);
  output_ = Linear(store, {attention + "o_proj", width}, query_rows, normal);
  post_norm_ = store.add(prefix + "post_attention_layernorm.weight", {width}, Initialiser::ones());
  if (moe) {
    moe_.emplace(store, prefix + "mlp.", layer, width, *moe, args.initializer_range);
  } else {
    dense_.emplace(store, prefix + "mlp.", width, args.intermediate_size, args.initializer_range);
  }
  parameters_.assign(store.parameters().begin() + static_cast<std::ptrdiff_t>(first_parameter),
                     store.parameters().end());
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
  const Variable qkv = qkv_.forward(rms_norm(x, input_norm_, args_.rms_norm_eps));
  const Variable rotated = rope(qkv, {.heads = args_.heads,
                                      .kv_heads = args_.kv_heads,
                                      .head_dim = args_.head_dim,
                                      .theta = args_.rope_theta,
                                      .positions = layout.positions});
  return output_.forward(attention(rotated, args));
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
  const std::vector<Variable> read = variables_of(parameters_);
  if (args_.residual.is_plain()) {  // one segment for the block: only its input is kept
    const BlockPass block = [attention, mlp](const Variable& in, ForwardContext& inner) {
      const Variable mixed = add(in, attention(in, inner));
      return add(mixed, mlp(mixed, inner));
    };
    return Streams(run_block(block, x.graph, read, context));
  }
  const auto part = [&](const BlockPass& pass) {
    return [&](const Variable& in) { return run_block(pass, in, read, context); };
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

  const Variable qkv = qkv_.forward(rms_norm(x, input_norm_, args_.rms_norm_eps));
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
  return output_.forward(Variable(mixed));
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
