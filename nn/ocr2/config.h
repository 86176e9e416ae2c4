// Configuration of a DeepSeek-OCR 2 model: the config.json of transformers' `deepseek_ocr2`.
#pragma once

#include "nn/blocks/residual_config.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// SAM ViT with neck and the two stride-2 convolutions ("vision tokenizer").
struct SamConfig {
  std::int64_t hidden_size = 768;
  std::int64_t output_channels = 256;  ///< of the neck
  std::int64_t num_hidden_layers = 12;
  std::int64_t num_attention_heads = 12;
  std::int64_t num_channels = 3;
  std::int64_t image_size = 1024;  ///< pixels a side that pos_embed is made for
  std::int64_t patch_size = 16;
  std::int64_t window_size = 14;  ///< patches a side
  std::vector<std::int64_t> global_attn_indexes = {2, 5, 8, 11};
  std::int64_t mlp_dim = 3072;
  double layer_norm_eps = 1e-6;
  std::vector<std::int64_t> downsample_channels = {512, 896};
  /// As in the file; see initial_deviation().
  double initializer_range = 0.02;

  /// Standard deviation of new weights. transformers' default for SAM is 1e-10, from which nothing
  /// ever trains (its authors start from pretrained weights): a value under 1e-6 stands for 0.02.
  double initial_deviation() const { return initializer_range < 1e-6 ? 0.02 : initializer_range; }
  std::int64_t grid() const { return image_size / patch_size; }
  std::int64_t head_dim() const { return hidden_size / num_attention_heads; }
  bool is_global(std::int64_t layer) const;
};

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

/// DeepSeek-MoE decoder.
struct TextConfig {
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
};

/// How a model was trained to be asked; kept under "lectern" in config.json so that reading,
/// scoring and going on with training need no flags.
struct ReadingSettings {
  /// What a page is read by: as a whole through its views, or in pieces of lines, each in a view of
  /// its own, for models whose view is too small for a page.
  bool by_pieces = false;              ///< `read_by` "page" or "pieces"
  std::int64_t piece_width = 112;      ///< pixels of the page at piece_dpi: longest run of words
  double piece_dpi = 100;              ///< dots per inch of the pages that pieces were cut from
  std::int64_t piece_margin = 4;       ///< white left of a piece
  std::int64_t piece_text_height = 0;  ///< pixels that pieces are scaled to; 0: as they are
  bool piece_at_top =
      false;  ///< `piece_at` "top" or "middle": where in the view's height pieces lie
  std::int64_t global_size = 1024;  ///< pixels a side of the padded view of the whole picture
  std::int64_t tile_size = 768;     ///< pixels a side of a local tile
  bool crop = true;                 ///< cut local tiles as the reference does
  std::string prompt = "<image>\nFree OCR.";
};

/// Rows of the LM encoder's output that the decoder is given.
enum class DecoderReads {
  queries,  ///< those of the causal-flow queries: DeepSeek-OCR 2
  visual,   ///< those of the visual tokens, in raster order; there are no queries then
};
std::string_view name_of(DecoderReads reads);
/// "queries" or "visual"; throws ConfigError for anything else.
DecoderReads decoder_reads_from(std::string_view name);

struct Ocr2Config {
  SamConfig sam;
  EncoderConfig encoder;
  TextConfig text;
  std::int64_t image_token_id = 128815;
  /// Rows of the two query tables. A view whose compressed grid has at most `queries_768` tokens
  /// takes the first table, any other the second. transformers has 144 and 256 fixed; other sizes
  /// (under "lectern" in the file) train here but cannot be exported.
  std::int64_t queries_768 = 144;
  std::int64_t queries_1024 = 256;
  /// Anything but queries is an ablation (docs/ablation-queries) that trains here only.
  DecoderReads decoder_reads = DecoderReads::queries;
  ReadingSettings reading;
  ResidualConfig residual;

  /// Tokens that a square view gives the LM encoder: ceil(grid / 4) a side, squared.
  std::int64_t image_tokens(std::int64_t view_pixels) const;
  /// Queries behind the image tokens of a view; 0 where the decoder reads the image tokens.
  std::int64_t query_count(std::int64_t view_pixels) const;
  /// Tokens of the decoder that stand for a view: its queries, or its image tokens.
  std::int64_t decoder_tokens(std::int64_t view_pixels) const;
};

/// Reads config.json: the transformers layout, or the original one (`language_config`,
/// `projector_config`, `vision_config.width`). Throws ConfigError naming file, field, found and
/// expected; a field that the model cannot honour (MLA, group-limited routing, attention bias ...)
/// is refused, never ignored.
Ocr2Config read_ocr2_config(const std::filesystem::path& path);
Ocr2Config parse_ocr2_config(const nlohmann::json& json, const std::string& name);

/// Weights of such a model, counted without making it.
double parameter_count(const Ocr2Config& config);

/// The transformers layout with every field written.
nlohmann::json to_hf_json(const Ocr2Config& config);
/// The layout that vLLM and SGLang read (`model_type deepseek_vl_v2`). Throws ConfigError when it
/// cannot say what the model is (layers of mixed order, unusual head_dim or epsilons).
nlohmann::json to_original_json(const Ocr2Config& config);

}  // namespace lectern
