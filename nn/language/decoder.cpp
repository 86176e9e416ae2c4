#include "nn/language/decoder.h"

#include "autograd/ops/layout.h"
#include "autograd/ops/linear.h"
#include "autograd/ops/linear_cross_entropy.h"
#include "autograd/ops/rms_norm.h"
#include "autograd/ops/rows.h"
#include "core/error.h"
#include "nn/parameter_names.h"

#include <algorithm>
#include <utility>

namespace lectern {
namespace {

constexpr std::int32_t kIgnoredLabel = -100;
constexpr const char* kEmbedding = "model.embed_tokens.";
constexpr const char* kHead = "lm_head.";

/// Label of position t is the token at t + 1; the last position of a row has none.
Tensor shift_labels(const Tensor& labels) {
  const std::int64_t rows = labels.dim(0), length = labels.dim(1);
  Tensor out = Tensor::empty({rows * length}, DType::i32);
  const std::int32_t* from = labels.data<std::int32_t>();
  std::int32_t* to = out.data<std::int32_t>();
  for (std::int64_t row = 0; row < rows; ++row) {
    std::copy_n(from + row * length + 1, length - 1, to + row * length);
    to[row * length + length - 1] = kIgnoredLabel;
  }
  return out;
}

BlockArgs block_args(const DecoderConfig& config, const ResidualConfig& residual) {
  return {.hidden_size = config.hidden_size,
          .heads = config.num_attention_heads,
          .kv_heads = config.num_key_value_heads,
          .head_dim = config.head_dim,
          .intermediate_size = config.intermediate_size,
          .rms_norm_eps = config.rms_norm_eps,
          .rope_theta = config.rope_theta,
          .initializer_range = config.initializer_range,
          .residual = residual};
}

MoeArgs moe_args(const DecoderConfig& config, const ModelPlacement& placement) {
  return {.routed_experts = config.n_routed_experts,
          .shared_experts = config.n_shared_experts,
          .top_k = config.num_experts_per_tok,
          .intermediate_size = config.moe_intermediate_size,
          .scaling = config.routed_scaling_factor,
          .expert_rank = placement.expert_rank,
          .expert_ranks = placement.expert_ranks};
}

}  // namespace

const std::vector<std::string>& decoder_prefixes() {
  static const std::vector<std::string> prefixes = {kEmbedding, kDecoderBlocks, "model.norm.",
                                                    "model.hc_head.", kHead};
  return prefixes;
}

ResidualStack decoder_residual(ParameterStore& store, const DecoderConfig& config,
                               const ResidualConfig& residual) {
  return {store, "model.", "decoder", residual.of_stack(residual.in_decoder), config.hidden_size};
}

bool is_routed_expert(const std::string& parameter) {
  return parameter.find(".mlp.experts.") != std::string::npos;
}

SequenceLayout causal_layout(const ModelInput& input) {
  SequenceLayout layout;
  layout.mask = MaskKind::causal;
  layout.segment_start = input.segment_start;
  layout.positions = input.positions;
  return layout;
}

Decoder::Decoder(ParameterStore& store, const DecoderConfig& config, ResidualStack residual,
                 const ModelPlacement& placement)
    : config_(config), residual_(std::move(residual)) {
  const auto normal = Initialiser::normal(config.initializer_range);
  const Shape table{config.vocab_size, config.hidden_size};
  embedding_ = store.add_matrix(std::string(kEmbedding) + "weight", table, normal);
  const BlockArgs block = block_args(config, residual_.config());
  const MoeArgs moe = moe_args(config, placement);
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const bool sparse = config.layer_is_sparse[static_cast<std::size_t>(i)];
    blocks_.emplace_back(store, fmt::format("{}{}.", kDecoderBlocks, i), i, block,
                         sparse ? std::optional(moe) : std::nullopt);
  }
  norm_ = store.add("model.norm.weight", {config.hidden_size}, Initialiser::ones());
  head_ = store.add_matrix(std::string(kHead) + "weight", table, normal);
}

std::optional<std::int64_t> Decoder::unit_of(const DecoderConfig& config, const std::string& name) {
  if (is_embedding(name)) return 0;
  if (const auto layer = layer_after(name, kDecoderBlocks)) return *layer;
  const bool is_last =
      name.starts_with("model.norm.") || name.starts_with("model.hc_head.") || is_head(name);
  return is_last ? std::optional(config.num_hidden_layers) : std::nullopt;
}

bool Decoder::is_head(const std::string& name) { return name.starts_with(kHead); }

bool Decoder::is_embedding(const std::string& name) { return name.starts_with(kEmbedding); }

Tensor Decoder::embed_tokens(const Tensor& ids) const {
  const NoGrad off;
  return lectern::embedding(embedding_, ids).value();
}

Streams Decoder::enter(const Variable& embeddings, ForwardContext& context) const {
  context.seam("decoder.inputs_embeds", embeddings.value());
  return residual_.enter(embeddings, context);
}

Streams Decoder::run(const UnitRange& blocks, Streams x, const SequenceLayout& layout,
                     ForwardContext& context) const {
  for (std::int64_t block = blocks.begin; block < blocks.end; ++block) {
    const auto i = static_cast<std::size_t>(block);
    x = residual_.at_block(x, i, blocks_.size(), context);
    x = blocks_[i].forward(x, layout, context);
    context.seam(fmt::format("decoder.layer{}", i), x.value);
  }
  return x;
}

Variable Decoder::finish(const Streams& x, ForwardContext& context) const {
  const Variable normed = rms_norm(residual_.leave(x, context), norm_, config_.rms_norm_eps);
  context.seam("decoder.norm", normed.value());
  return normed;
}

Variable Decoder::logits(const Variable& hidden) const { return linear(hidden, head_); }

Variable Decoder::forward(const Variable& embeddings, const SequenceLayout& layout,
                          ForwardContext& context) const {
  const Streams x = enter(embeddings, context);
  return finish(run({0, config_.num_hidden_layers}, x, layout, context), context);
}

ModelLoss Decoder::loss(const Streams& hidden, const Tensor& labels,
                        ForwardContext& context) const {
  const auto result = linear_cross_entropy(view(finish(hidden, context), {-1, config_.hidden_size}),
                                           head_, shift_labels(labels));
  return {result.loss_sum, result.count};
}

Tensor Decoder::step(const Tensor& embeddings, DecodingCache& cache,
                     ForwardContext& context) const {
  const NoGrad off;
  check_ndim(embeddings, 3, "step", "embeddings [B, T, C]");
  const std::int64_t batch = embeddings.dim(0), tokens = embeddings.dim(1);
  if (batch != cache.batch())
    fail<ShapeError>(fmt::format("step: embeddings must be of {} sequences, got {}", cache.batch(),
                                 embeddings.describe()));
  Tensor lengths = Tensor::empty({batch}, DType::i32);
  for (std::int64_t b = 0; b < batch; ++b) {
    if (cache.length(b) + tokens > cache.capacity())
      fail<ShapeError>(fmt::format("step: the cache holds {} tokens, {} + {} are needed",
                                   cache.capacity(), cache.length(b), tokens));
    lengths.data<std::int32_t>()[b] = static_cast<std::int32_t>(cache.length(b));
  }
  cache.reserve(cache.longest() + tokens);
  Streams x = residual_.enter(Variable(embeddings), context);
  for (std::size_t i = 0; i < blocks_.size(); ++i)
    x = blocks_[i].decode(x, {&cache.layers_[i], lengths}, context);
  for (std::int64_t& length : cache.lengths_) length += tokens;
  const std::int64_t width = config_.hidden_size;
  x = Streams(Variable(x.value.slice(1, tokens - 1, tokens).contiguous()));
  const Tensor last = residual_.leave(x, context).value().view({batch, width});
  return logits(rms_norm(Variable(last), norm_, config_.rms_norm_eps)).value();
}

}  // namespace lectern
