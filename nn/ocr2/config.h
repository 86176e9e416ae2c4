// Configuration of a DeepSeek-OCR 2 model: the config.json of transformers' `deepseek_ocr2`.
#pragma once

#include "nn/model_config.h"
#include "nn/vision/sam_config.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// LM-style encoder (Qwen2 shape, no embeddings).
struct EncoderConfig {
  std::int64_t hidden_size = 896;
  std::int64_t intermediate_size = 4864;
  std::int64_t num_hidden_layers = 24;
  std::int64_t num_attention_heads = 14;
  std::int64_t num_key_value_heads = 2;
  std::int64_t max_position_embeddings = 131072;
  double rms_norm_eps = 1e-6;
  double rope_theta = 1e6;
  double initializer_range = 0.02;
  std::int64_t vocab_size = 151936;  ///< unused by the model, kept for the file

  std::int64_t head_dim() const { return hidden_size / num_attention_heads; }
};

/// Rows of the LM encoder's output that the decoder is given.
enum class DecoderReads {
  queries,  ///< those of the causal-flow queries: DeepSeek-OCR 2
  visual,   ///< those of the visual tokens, in raster order; there are no queries then
};
std::string_view name_of(DecoderReads reads);
/// "queries" or "visual"; throws ConfigError for anything else.
DecoderReads decoder_reads_from(std::string_view name);

class Ocr2Config final : public ModelConfig {
 public:
  SamConfig sam;
  EncoderConfig encoder;
  /// Rows of the two query tables. A view whose compressed grid has at most `queries_768` tokens
  /// takes the first table, any other the second. transformers has 144 and 256 fixed; other sizes
  /// (under "lectern" in the file) train here but cannot be exported.
  std::int64_t queries_768 = 144;
  std::int64_t queries_1024 = 256;
  /// Anything but queries is an ablation (docs/ablation-queries) that trains here only.
  DecoderReads decoder_reads = DecoderReads::queries;

  /// Tokens that a square view gives the LM encoder: ceil(grid / 4) a side, squared.
  std::int64_t visual_tokens(std::int64_t view_pixels) const override;
  /// Queries behind the visual tokens of a view; 0 where the decoder reads the visual tokens.
  std::int64_t query_count(std::int64_t view_pixels) const;
  /// Its queries, or its visual tokens.
  std::int64_t decoder_tokens(std::int64_t view_pixels) const override;

  std::unique_ptr<ModelConfig> clone() const override;
  std::string_view family() const override { return "ocr2"; }
  void apply(const ModelSettings& settings) override;
  nlohmann::json to_json() const override;
  std::unique_ptr<OcrModel> make(std::uint64_t seed, DType dtype, ParameterValues values,
                                 const ModelPlacement& placement) const override;
  double parameter_count() const override;
  const ModelParts& parts() const override;
  std::map<std::string, std::vector<std::string>> named_parts() const override;
  std::string published_name(const std::string& name) const override;
  std::string module_name(const std::string& published) const override;
  std::int64_t patch_size() const override { return sam.patch_size; }

  // Units: 0 is SAM with the convolutions, for all views; 1 .. E - 1 the encoder's blocks, the
  // first with the queries, the last with the encoder's norm and the projector (units.cpp,
  // work.cpp).
  std::int64_t encoder_units() const override { return encoder.num_hidden_layers + 1; }
  std::optional<std::int64_t> encoder_unit_of(const std::string& name) const override;
  std::string encoder_unit_name(std::int64_t unit) const override;
  double rows_of(std::int64_t unit, const std::string& parameter,
                 std::span<const ViewCount> views) const override;
  UnitSizes encoder_sizes(std::int64_t unit, std::span<const ViewCount> views) const override;
  double estimated_rows(std::int64_t unit) const override;
};

/// Reads config.json: the transformers layout, or the original one (`language_config`,
/// `projector_config`, `vision_config.width`). Throws ConfigError naming file, field, found and
/// expected; a field that the model cannot honour (MLA, group-limited routing, attention bias,
/// scaled or partial rotary positions, quantization ...) is refused, never ignored, and a field
/// that lectern does not know is refused or noted (nn/other_fields.h).
Ocr2Config read_ocr2_config(const std::filesystem::path& path);
Ocr2Config parse_ocr2_config(const nlohmann::json& json, const std::string& name);

/// The transformers layout with every field written.
nlohmann::json to_hf_json(const Ocr2Config& config);
/// The layout that vLLM and SGLang read (`model_type deepseek_vl_v2`). Throws ConfigError when it
/// cannot say what the model is (layers of mixed order, unusual head_dim or epsilons).
nlohmann::json to_original_json(const Ocr2Config& config);

}  // namespace lectern
