#include "nn/ocr2/lm_encoder.h"

#include "autograd/ops/layout.h"
#include "autograd/ops/rms_norm.h"

namespace lectern {

LmEncoder::LmEncoder(ParameterStore& store, const Ocr2Config& config)
    : config_(config.encoder),
      reads_(config.decoder_reads),
      queries_768_count_(config.queries_768),
      residual_(store, "model.qwen2_model.model.model.", "encoder",
                config.residual.of_stack(config.residual.in_encoder), config.encoder.hidden_size) {
  const std::string prefix = "model.qwen2_model.";
  const auto normal = Initialiser::normal(config_.initializer_range);
  for (std::int64_t i = 0; i < config_.num_hidden_layers; ++i) {
    blocks_.emplace_back(store, fmt::format("{}model.model.layers.{}.", prefix, i), i,
                         BlockArgs{.hidden_size = config_.hidden_size,
                                   .heads = config_.num_attention_heads,
                                   .kv_heads = config_.num_key_value_heads,
                                   .head_dim = config_.head_dim(),
                                   .intermediate_size = config_.intermediate_size,
                                   .rms_norm_eps = config_.rms_norm_eps,
                                   .rope_theta = config_.rope_theta,
                                   .initializer_range = config_.initializer_range,
                                   .qkv_bias = true,
                                   .residual = residual_.config()});
  }
  norm_ = store.add(prefix + "model.model.norm.weight", {config_.hidden_size}, Initialiser::ones());
  if (reads_ == DecoderReads::visual) return;
  queries_768_ =
      store.add(prefix + "query_768.weight", {config.queries_768, config_.hidden_size}, normal);
  queries_1024_ =
      store.add(prefix + "query_1024.weight", {config.queries_1024, config_.hidden_size}, normal);
}

Streams LmEncoder::enter(const Variable& image_tokens, ForwardContext& context) const {
  if (reads_ == DecoderReads::visual) return residual_.enter(image_tokens, context);
  const std::int64_t batch = image_tokens.dim(0), image_count = image_tokens.dim(1);
  const Variable& queries = image_count <= queries_768_count_ ? queries_768_ : queries_1024_;
  return residual_.enter(concat({image_tokens, repeat_leading(queries, batch)}, 1), context);
}

Streams LmEncoder::block(std::int64_t index, const Streams& x, std::int64_t image_tokens,
                         ForwardContext& context, const std::string& view_name) const {
  SequenceLayout layout;
  layout.mask = MaskKind::prefix_causal;
  layout.prefix = image_tokens;
  const auto at = static_cast<std::size_t>(index);
  const Streams in = residual_.at_block(x, at, blocks_.size(), context);
  const Streams out = blocks_[at].forward(in, layout, context);
  context.seam(fmt::format("{}encoder.layer{}", view_name, index), out.value);
  return out;
}

Variable LmEncoder::leave(const Streams& x, std::int64_t image_tokens, ForwardContext& context,
                          const std::string& view_name) const {
  const Variable merged = rms_norm(residual_.leave(x, context), norm_, config_.rms_norm_eps);
  if (reads_ == DecoderReads::visual) {
    context.seam(view_name + "encoder.visual", merged.value());
    return merged;
  }
  const Variable out = slice(merged, 1, image_tokens, merged.dim(1));
  context.seam(view_name + "encoder.queries", out.value());
  return out;
}

Variable LmEncoder::forward(const Variable& image_tokens, ForwardContext& context,
                            const std::string& view_name) const {
  const std::int64_t count = image_tokens.dim(1);
  Streams x = enter(image_tokens, context);
  for (std::int64_t i = 0; i < blocks(); ++i) x = block(i, x, count, context, view_name);
  return leave(x, count, context, view_name);
}

}  // namespace lectern
