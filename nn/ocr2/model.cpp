#include "nn/ocr2/model.h"

#include "autograd/ops/layout.h"
#include "autograd/ops/linear.h"
#include "autograd/ops/linear_cross_entropy.h"
#include "autograd/ops/rms_norm.h"
#include "autograd/ops/rows.h"

#include <algorithm>
#include <numeric>

namespace lectern {
namespace {

constexpr std::int32_t kIgnoredLabel = -100;

/// Source numbers of the merged sequence (see Ocr2Model::merge_index).
enum Source : std::int32_t { kText = 0, kGlobal = 1, kSeparator = 2, kLocal = 3 };

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

ParameterStore::Owned owned_in(const Ocr2Config& config, const std::vector<Ocr2UnitRange>& units) {
  if (units.empty()) return {};
  return [config, units](const std::string& name) {
    const std::int64_t unit = unit_of_parameter(config, name);
    return std::any_of(units.begin(), units.end(), [&](const Ocr2UnitRange& range) {
      return unit >= range.begin && unit < range.end;
    });
  };
}

}  // namespace

DecodingCache::DecodingCache(const TextConfig& config, std::int64_t batch, std::int64_t capacity,
                             DType dtype, Device device)
    : capacity_(capacity), lengths_(static_cast<std::size_t>(batch), 0) {
  const Shape shape{batch, 0, config.num_key_value_heads * config.head_dim};
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i)
    layers_.push_back({Tensor::empty(shape, dtype, device), Tensor::empty(shape, dtype, device)});
}

std::int64_t DecodingCache::longest() const {
  return lengths_.empty() ? 0 : *std::max_element(lengths_.begin(), lengths_.end());
}

void DecodingCache::reserve(std::int64_t tokens) {
  constexpr std::int64_t kBlock = 256;
  if (tokens > reserved())
    resize(batch(), std::min(capacity_, (tokens + kBlock - 1) / kBlock * kBlock));
}

void DecodingCache::resize(std::int64_t sequences, std::int64_t tokens) {
  const std::int64_t used = longest();
  const auto grow = [&](Tensor& rows) {
    const Tensor larger =
        Tensor::empty({sequences, tokens, rows.dim(2)}, rows.dtype(), rows.device());
    larger.slice(0, 0, batch()).slice(1, 0, used).copy_from(rows.slice(1, 0, used));
    rows = larger;
  };
  for (LayerCache& layer : layers_) {
    grow(layer.keys);
    grow(layer.values);
  }
  lengths_.resize(static_cast<std::size_t>(sequences), 0);
}

void DecodingCache::take(const DecodingCache& other, const std::vector<std::int64_t>& rows,
                         const std::vector<std::int64_t>& places) {
  capacity_ = std::max(capacity_, other.capacity_);
  std::int64_t sequences = batch(), tokens = 0;
  for (const std::int64_t row : rows) tokens = std::max(tokens, other.length(row));
  for (const std::int64_t place : places) sequences = std::max(sequences, place + 1);
  reserve(tokens);
  if (sequences > batch()) resize(sequences, reserved());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::int64_t used = other.length(rows[i]);
    const auto copy = [&](const Tensor& to, const Tensor& from) {
      to.slice(0, places[i], places[i] + 1)
          .slice(1, 0, used)
          .copy_from(from.slice(0, rows[i], rows[i] + 1).slice(1, 0, used));
    };
    for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
      copy(layers_[layer].keys, other.layers_[layer].keys);
      copy(layers_[layer].values, other.layers_[layer].values);
    }
    lengths_[static_cast<std::size_t>(places[i])] = used;
  }
}

void DecodingCache::keep(const std::vector<std::int64_t>& sequences) {
  const auto gather = [&](Tensor& rows) {
    const auto count = static_cast<std::int64_t>(sequences.size());
    const Tensor kept =
        Tensor::empty({count, rows.dim(1), rows.dim(2)}, rows.dtype(), rows.device());
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t from = sequences[static_cast<std::size_t>(i)];
      const std::int64_t used = length(from);
      kept.slice(0, i, i + 1)
          .slice(1, 0, used)
          .copy_from(rows.slice(0, from, from + 1).slice(1, 0, used));
    }
    rows = kept;
  };
  for (LayerCache& layer : layers_) {
    gather(layer.keys);
    gather(layer.values);
  }
  std::vector<std::int64_t> lengths;
  for (const std::int64_t from : sequences) lengths.push_back(length(from));
  lengths_ = std::move(lengths);
}

Ocr2Model::Ocr2Model(const Ocr2Config& config, std::uint64_t seed, DType dtype,
                     ParameterValues values, const Ocr2Placement& placement)
    : config_(config),
      store_(seed, dtype, values, owned_in(config, placement.units)),
      sam_(store_, config.sam),
      encoder_(store_, config),
      residual_(store_, "model.", "decoder", config.residual.of_stack(config.residual.in_decoder),
                config.text.hidden_size) {
  const TextConfig& text = config.text;
  const auto normal = Initialiser::normal(text.initializer_range);
  projector_weight_ = store_.add_matrix("model.projector.layers.weight",
                                        {text.hidden_size, config.encoder.hidden_size}, normal);
  projector_bias_ =
      store_.add("model.projector.layers.bias", {text.hidden_size}, Initialiser::zeros());
  view_separator_ =
      store_.add("model.view_seperator", {text.hidden_size},
                 Initialiser::normal(1.0 / std::sqrt(static_cast<double>(text.hidden_size))));
  embed_tokens_ =
      store_.add_matrix("model.embed_tokens.weight", {text.vocab_size, text.hidden_size}, normal);
  const BlockArgs block{.hidden_size = text.hidden_size,
                        .heads = text.num_attention_heads,
                        .kv_heads = text.num_key_value_heads,
                        .head_dim = text.head_dim,
                        .intermediate_size = text.intermediate_size,
                        .rms_norm_eps = text.rms_norm_eps,
                        .rope_theta = text.rope_theta,
                        .initializer_range = text.initializer_range,
                        .residual = residual_.config()};
  const MoeArgs moe{.routed_experts = text.n_routed_experts,
                    .shared_experts = text.n_shared_experts,
                    .top_k = text.num_experts_per_tok,
                    .intermediate_size = text.moe_intermediate_size,
                    .scaling = text.routed_scaling_factor,
                    .expert_rank = placement.expert_rank,
                    .expert_ranks = placement.expert_ranks};
  for (std::int64_t i = 0; i < text.num_hidden_layers; ++i) {
    const bool sparse = text.layer_is_sparse[static_cast<std::size_t>(i)];
    blocks_.emplace_back(store_, fmt::format("model.layers.{}.", i), i, block,
                         sparse ? std::optional(moe) : std::nullopt);
  }
  norm_ = store_.add("model.norm.weight", {text.hidden_size}, Initialiser::ones());
  lm_head_ = store_.add_matrix("lm_head.weight", {text.vocab_size, text.hidden_size}, normal);
}

Streams Ocr2Model::run_encoder(const Ocr2UnitRange& range, const Tensor& pixels, Streams x,
                               ForwardContext& context, const std::string& view_name) const {
  const std::int64_t image_tokens = config_.image_tokens(pixels.dim(2));
  for (std::int64_t unit = range.begin; unit < range.end; ++unit) {
    if (unit == 0) {
      const Variable grid = sam_.forward(pixels, context, view_name);
      x = Streams(view(grid, {grid.dim(0), grid.dim(1) * grid.dim(2), grid.dim(3)}));
      continue;
    }
    if (unit == 1) x = encoder_.enter(x.graph, context);
    x = encoder_.block(unit - 1, x, image_tokens, context, view_name);
    if (unit < encoder_.blocks()) continue;
    const Variable queries = encoder_.leave(x, image_tokens, context, view_name);
    x = Streams(linear(queries, projector_weight_, projector_bias_));
    context.seam(view_name + "projector", x.value);
  }
  return x;
}

VisualFeatures Ocr2Model::encode(const Ocr2Input& input, ForwardContext& context) const {
  const Ocr2Activation x = run_units({0, first_decoder_unit(config_)}, input, {}, context);
  return {x.global.graph, x.local.graph};
}

Ocr2Activation Ocr2Model::run_units(const Ocr2UnitRange& range, const Ocr2Input& input,
                                    Ocr2Activation x, ForwardContext& context) const {
  const std::int64_t decoder = first_decoder_unit(config_);
  // One view after the other, each through all encoder units: a stack is passed at one go.
  const Ocr2UnitRange encoder{range.begin, std::min(range.end, decoder)};
  if (encoder.begin < encoder.end) {
    if (input.pixel_values.defined())
      x.global = run_encoder(encoder, input.pixel_values, std::move(x.global), context, "global.");
    if (input.pixel_values_local.defined())
      x.local =
          run_encoder(encoder, input.pixel_values_local, std::move(x.local), context, "local.");
  }
  const Ocr2UnitRange blocks{std::max(range.begin, decoder),
                             std::min(range.end, unit_count(config_) - 1)};
  if (blocks.begin >= blocks.end) return x;
  if (blocks.begin == decoder) {
    const Variable embeddings = embed(input, {x.global.graph, x.local.graph});
    context.seam("decoder.inputs_embeds", embeddings.value());
    x = {};
    x.hidden = residual_.enter(embeddings, context);
  }
  x.hidden = run_decoder({blocks.begin - decoder, blocks.end - decoder}, std::move(x.hidden), input,
                         context);
  return x;
}

Streams Ocr2Model::run_decoder(const Ocr2UnitRange& blocks, Streams x, const Ocr2Input& input,
                               ForwardContext& context) const {
  SequenceLayout layout;
  layout.mask = MaskKind::causal;
  layout.segment_start = input.segment_start;
  layout.positions = input.positions;
  for (std::int64_t block = blocks.begin; block < blocks.end; ++block) {
    const auto i = static_cast<std::size_t>(block);
    x = residual_.at_block(x, i, blocks_.size(), context);
    x = blocks_[i].forward(x, layout, context);
    context.seam(fmt::format("decoder.layer{}", i), x.value);
  }
  return x;
}

Tensor Ocr2Model::merge_index(const Ocr2Input& input, const VisualFeatures& features) const {
  // Order of the rows of one image: its local tiles, row-major, then the global view, then the
  // separator (docs/ocr2.md section 1, "Merge").
  std::vector<std::pair<std::int32_t, std::int32_t>> image_rows;
  std::int32_t tile_row = 0;
  for (std::size_t image = 0; image < input.num_local_patches.size(); ++image) {
    const std::int64_t local =
        features.local.defined() ? input.num_local_patches[image] * features.local.dim(1) : 0;
    for (std::int64_t i = 0; i < local; ++i) image_rows.emplace_back(kLocal, tile_row++);
    const std::int64_t global = features.global.dim(1);
    for (std::int64_t i = 0; i < global; ++i)
      image_rows.emplace_back(
          kGlobal, static_cast<std::int32_t>(static_cast<std::int64_t>(image) * global + i));
    image_rows.emplace_back(kSeparator, 0);
  }
  const std::int64_t positions = input.input_ids.numel();
  const std::int32_t* ids = input.input_ids.data<std::int32_t>();
  Tensor index = Tensor::empty({positions, 2}, DType::i32);
  std::int32_t* out = index.data<std::int32_t>();
  std::size_t next = 0;
  for (std::int64_t i = 0; i < positions; ++i) {
    std::pair<std::int32_t, std::int32_t> row{kText, ids[i]};
    if (ids[i] == config_.image_token_id) {
      if (next < image_rows.size()) row = image_rows[next];
      ++next;
    }
    out[2 * i] = row.first;
    out[2 * i + 1] = row.second;
  }
  if (next != image_rows.size())
    fail<ShapeError>(fmt::format(
        "Ocr2Model: input_ids must hold one image token (id {}) for each of the {} image rows, "
        "got {}",
        config_.image_token_id, image_rows.size(), next));
  return index;
}

Variable Ocr2Model::embed(const Ocr2Input& input, const VisualFeatures& features) const {
  check_ndim(input.input_ids, 2, "Ocr2Model", "input_ids [B, T]");
  check_dtype(input.input_ids, DType::i32, "Ocr2Model", "input_ids");
  const std::int64_t width = config_.text.hidden_size;
  std::vector<Variable> sources = {embed_tokens_};
  if (features.global.defined()) {
    sources.push_back(view(features.global, {-1, width}));
    sources.push_back(view(view_separator_, {1, width}));
    if (features.local.defined()) sources.push_back(view(features.local, {-1, width}));
  }
  const Variable rows = select_rows(sources, merge_index(input, features));
  return view(rows, {input.input_ids.dim(0), input.input_ids.dim(1), width});
}

Variable Ocr2Model::decode(const Variable& embeddings, const Ocr2Input& input,
                           ForwardContext& context) const {
  context.seam("decoder.inputs_embeds", embeddings.value());
  const Streams x = residual_.enter(embeddings, context);
  return finish_decoder(run_decoder({0, config_.text.num_hidden_layers}, x, input, context),
                        context);
}

Variable Ocr2Model::finish_decoder(const Streams& x, ForwardContext& context) const {
  const Variable normed = rms_norm(residual_.leave(x, context), norm_, config_.text.rms_norm_eps);
  context.seam("decoder.norm", normed.value());
  return normed;
}

Variable Ocr2Model::logits(const Variable& hidden) const { return linear(hidden, lm_head_); }

Ocr2Loss Ocr2Model::loss_of(const Streams& hidden, const Ocr2Input& input,
                            ForwardContext& context) const {
  check_shape(input.labels, input.input_ids.shape(), "Ocr2Model", "labels");
  const auto result =
      linear_cross_entropy(view(finish_decoder(hidden, context), {-1, config_.text.hidden_size}),
                           lm_head_, shift_labels(input.labels));
  return {result.loss_sum, result.count};
}

Ocr2Loss Ocr2Model::loss(const Ocr2Input& input, ForwardContext& context,
                         const VisualFeatures* features) const {
  const VisualFeatures computed = features == nullptr ? encode(input, context) : *features;
  Ocr2Activation x;
  if (computed.global.defined()) x.global = Streams(computed.global);
  if (computed.local.defined()) x.local = Streams(computed.local);
  const Ocr2UnitRange decoder{first_decoder_unit(config_), unit_count(config_)};
  return loss_of(run_units(decoder, input, std::move(x), context).hidden, input, context);
}

Tensor Ocr2Model::embed_tokens(const Tensor& ids) const {
  const NoGrad off;
  return embedding(embed_tokens_, ids).value();
}

Tensor Ocr2Model::step(const Tensor& embeddings, DecodingCache& cache,
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
  const std::int64_t width = config_.text.hidden_size;
  x = Streams(Variable(x.value.slice(1, tokens - 1, tokens).contiguous()));
  const Tensor last = residual_.leave(x, context).value().view({batch, width});
  return logits(rms_norm(Variable(last), norm_, config_.text.rms_norm_eps)).value();
}

}  // namespace lectern
