// A complete model of a few thousand weights: two views of different size, both query tables, a
// dense and a sparse layer.
#pragma once

#include "core/random.h"
#include "nn/families.h"
#include "nn/model.h"
#include "tests/testing.h"

#include <nlohmann/json.hpp>

#include <memory>

namespace lectern::testing {

/// A configuration of any family that is copied and changed like a value.
class AnyConfig {
 public:
  AnyConfig(std::unique_ptr<ModelConfig> config) : config_(std::move(config)) {}  // NOLINT
  AnyConfig(const ModelConfig& config) : config_(config.clone()) {}               // NOLINT
  AnyConfig(const AnyConfig& other) : config_(other.config_->clone()) {}
  AnyConfig& operator=(const AnyConfig&) = delete;

  ModelConfig* operator->() { return config_.get(); }
  const ModelConfig* operator->() const { return config_.get(); }
  operator const ModelConfig&() const { return *config_; }  // NOLINT

 private:
  std::unique_ptr<ModelConfig> config_;
};

inline AnyConfig tiny_model_config() {
  const auto json = nlohmann::json::parse(R"({
    "image_token_id": 23,
    "vision_config": {
      "sam_config": {"hidden_size": 8, "output_channels": 6, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 20, "patch_size": 2, "window_size": 3,
        "global_attn_indexes": [1], "mlp_dim": 12, "downsample_channels": [6, 8],
        "initializer_range": 0.3},
      "encoder_config": {"hidden_size": 8, "intermediate_size": 10, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.3,
        "rope_theta": 1000000.0}},
    "text_config": {"vocab_size": 24, "hidden_size": 8, "intermediate_size": 10,
      "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 4,
      "n_routed_experts": 3, "n_shared_experts": 1, "num_experts_per_tok": 2,
      "moe_intermediate_size": 4, "mlp_layer_types": ["dense", "sparse"],
      "initializer_range": 0.3},
    "lectern": {"queries_768": 4, "queries_1024": 5}})");
  // Views of 16 pixels have 2 x 2 visual tokens and take the first table, those of 20 the second.
  return AnyConfig(parse_model_config(json, "tiny"));
}

inline std::unique_ptr<OcrModel> make_model(const AnyConfig& config, std::uint64_t seed,
                                            DType dtype = DType::f32,
                                            ParameterValues values = ParameterValues::initialised,
                                            const ModelPlacement& placement = {}) {
  return config->make(seed, dtype, values, placement);
}

/// Every weight normal, so that nothing hides behind zeros and ones.
inline void fill_weights(OcrModel& model, std::uint64_t seed) {
  for (const auto& [name, tensor] : model.store().state())
    Random(seed, name).fill_normal(tensor, 0.1, 0.4);
  for (const Parameter& parameter : model.store().parameters())
    parameter.variable.value().mark_modified();
}

/// `images` prompts of one picture each: begin, tiles and global view, separator, `text` tokens.
inline ModelInput tiny_prompt(const ModelConfig& config, std::int64_t images, std::int64_t tiles,
                              std::int64_t text, std::uint64_t seed) {
  const std::int64_t rows = tiles * config.decoder_tokens(16) + config.decoder_tokens(20) + 1;
  const std::int64_t length = 1 + rows + text;
  ModelInput input;
  input.input_ids = Tensor::full({images, length}, 0, DType::i32);
  Random random(seed, "prompt");
  for (std::int64_t i = 0; i < images * length; ++i) {
    const std::int64_t column = i % length;
    std::int32_t& id = input.input_ids.data<std::int32_t>()[i];
    if (column >= 1 && column <= rows) id = static_cast<std::int32_t>(config.image_token_id);
    if (column > rows) id = static_cast<std::int32_t>(3 + random.below(19));
  }
  input.pixel_values = random_tensor({images, 3, 20, 20}, seed + 1);
  if (tiles > 0) input.pixel_values_local = random_tensor({images * tiles, 3, 16, 16}, seed + 2);
  input.num_local_patches.assign(static_cast<std::size_t>(images), tiles);
  return input;
}

}  // namespace lectern::testing
