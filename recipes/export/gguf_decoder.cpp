// Keys and limits of llama.cpp's deepseek2-ocr, the DeepSeek-MoE decoder without MLA.
#include "recipes/export/gguf_model.h"

#include <algorithm>

namespace lectern {
namespace {

std::uint32_t as_u32(std::int64_t value) { return static_cast<std::uint32_t>(value); }

std::ptrdiff_t leading_dense_layers(const DecoderConfig& text) {
  return std::find(text.layer_is_sparse.begin(), text.layer_is_sparse.end(), true) -
         text.layer_is_sparse.begin();
}

}  // namespace

void check_gguf_decoder(const LoadedModel& model, GgufLimits& limits) {
  const ModelConfig& config = model.model->config();
  const DecoderConfig& text = config.decoder;
  limits.need(config.residual.is_plain(), "lectern.residual", "\"plain\"",
              fmt::format("\"{}\"", name_of(config.residual.kind)));
  limits.need(
      text.num_key_value_heads == text.num_attention_heads, "text_config.num_key_value_heads",
      fmt::format("num_attention_heads = {}", text.num_attention_heads), text.num_key_value_heads);
  limits.need(text.head_dim * text.num_attention_heads == text.hidden_size, "text_config.head_dim",
              fmt::format("hidden_size / num_attention_heads = {} / {}", text.hidden_size,
                          text.num_attention_heads),
              text.head_dim);
  constexpr double kRopeTheta = 10000;
  limits.need(text.rope_theta == kRopeTheta, "text_config.rope_parameters.rope_theta", kRopeTheta,
              text.rope_theta);
  const auto& sparse = text.layer_is_sparse;
  const auto dense = leading_dense_layers(text);
  limits.need(std::all_of(sparse.begin() + dense, sparse.end(), [](bool each) { return each; }),
              "text_config.mlp_layer_types", "all \"dense\" before all \"sparse\"",
              "another order");
  limits.need(text.is_sparse(), "text_config.mlp_layer_types", "\"sparse\" in one layer at least",
              "\"dense\" throughout");
  check_gguf_tokenizer(model.tokenizer, limits);
}

// A key a line, in the order of the file.
GgufMetadata gguf_decoder_metadata(const LoadedModel& model, const std::string& name,
                                   GgufType type) {
  constexpr std::uint32_t kQuantizationVersion = 2, kSoftmax = 1;
  const DecoderConfig& text = model.model->config().decoder;
  const std::string p = "deepseek2-ocr.";
  GgufMetadata out = {
      {"general.architecture", std::string("deepseek2-ocr")},
      {"general.type", std::string("model")},
      {"general.name", name},
      {"general.file_type", gguf_file_type(type)},
      {"general.quantization_version", kQuantizationVersion},
      {p + "block_count", as_u32(text.num_hidden_layers)},
      {p + "context_length", as_u32(text.max_position_embeddings)},
      {p + "embedding_length", as_u32(text.hidden_size)},
      {p + "feed_forward_length", as_u32(text.intermediate_size)},
      {p + "attention.head_count", as_u32(text.num_attention_heads)},
      {p + "attention.head_count_kv", as_u32(text.num_key_value_heads)},
      {p + "attention.key_length", as_u32(text.head_dim)},
      {p + "attention.value_length", as_u32(text.head_dim)},
      {p + "attention.layer_norm_rms_epsilon", static_cast<float>(text.rms_norm_eps)},
      {p + "rope.dimension_count", as_u32(text.head_dim)},
      {p + "rope.freq_base", static_cast<float>(text.rope_theta)},
      {p + "leading_dense_block_count", as_u32(leading_dense_layers(text))},
      {p + "vocab_size", as_u32(text.vocab_size)},
      {p + "expert_count", as_u32(text.n_routed_experts)},
      {p + "expert_used_count", as_u32(text.num_experts_per_tok)},
      {p + "expert_shared_count", as_u32(text.n_shared_experts)},
      {p + "expert_feed_forward_length", as_u32(text.moe_intermediate_size)},
      {p + "expert_weights_scale", static_cast<float>(text.routed_scaling_factor)},
      {p + "expert_weights_norm", false},
      {p + "expert_gating_func", kSoftmax},
  };
  for (auto& each : gguf_tokenizer_metadata(model)) out.push_back(std::move(each));
  return out;
}

}  // namespace lectern
