// Configuration of the DeepSeek-MoE decoder.
#pragma once

#include "nn/blocks/residual_config.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <vector>

namespace lectern {

class Fields;

/// DeepSeek-MoE decoder.
struct DecoderConfig {
  std::int64_t vocab_size = 129280;
  std::int64_t hidden_size = 1280;
  std::int64_t intermediate_size = 6848;
  std::int64_t num_hidden_layers = 12;
  std::int64_t num_attention_heads = 10;
  std::int64_t num_key_value_heads = 10;
  std::int64_t head_dim = 128;
  std::int64_t n_routed_experts = 64;
  std::int64_t n_shared_experts = 2;
  std::int64_t num_experts_per_tok = 6;
  std::int64_t moe_intermediate_size = 896;
  std::vector<bool> layer_is_sparse;  ///< mlp_layer_types: "sparse" or "dense", one a layer
  double routed_scaling_factor = 1.0;
  std::int64_t max_position_embeddings = 8192;
  double rms_norm_eps = 1e-6;
  double rope_theta = 1e4;
  double initializer_range = 0.02;
  std::int64_t bos_token_id = 0;
  std::int64_t eos_token_id = 1;
  std::int64_t pad_token_id = 2;

  /// Whether any layer has routed experts.
  bool is_sparse() const;
};

/// Reads `text_config`, or `language_config` of the original layout. Throws ConfigError; what the
/// decoder cannot honour (MLA, group-limited routing, attention bias ...) is refused, and so are
/// other fields that may change the result, where `in` is watched (nn/other_fields.h).
DecoderConfig parse_decoder(const Fields& in);
/// The object that parse_decoder() reads, with every field written but `model_type`.
nlohmann::json to_json(const DecoderConfig& config);
/// The base of rotary positions: `rope_parameters.rope_theta` (`rope_scaling.rope_theta`) or
/// `rope_theta` of an object. Throws ConfigError for any scaling, for rotation of a part of a head,
/// and where two of them disagree.
double parse_rope_theta(const Fields& in, double fallback);
/// Throws ConfigError unless `layer_types`, where the file has it, is "full_attention" throughout.
void check_full_attention(const Fields& in, std::int64_t layers);
/// Weights of such a decoder with its embedding and head, counted without making it.
double parameter_count(const DecoderConfig& config, const ResidualConfig& residual);

}  // namespace lectern
