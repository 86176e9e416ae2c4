// DeepSeek-OCR 2 for llama.cpp: model.gguf (decoder, tokenizer) and mmproj.gguf (all before it).
#include "core/error.h"
#include "recipes/export/gguf_model.h"
#include "recipes/export/ocr2.h"

#include <fmt/ranges.h>

namespace lectern {
namespace {

/// The LM encoder and its queries; the rest of the vision file is gguf_vision_rules().
constexpr GgufRule kEncoderRules[] = {
    {"model.qwen2_model.query_768", "v.resample_query_768"},
    {"model.qwen2_model.query_1024", "v.resample_query_1024"},
    {"model.qwen2_model.model.model.norm", "v.post_ln"},
    {"model.qwen2_model.model.model.layers.*.input_layernorm", "v.blk.*.ln1"},
    {"model.qwen2_model.model.model.layers.*.post_attention_layernorm", "v.blk.*.ln2"},
    {"model.qwen2_model.model.model.layers.*.self_attn.q_proj", "v.blk.*.attn_q", GgufRole::matrix},
    {"model.qwen2_model.model.model.layers.*.self_attn.k_proj", "v.blk.*.attn_k", GgufRole::matrix},
    {"model.qwen2_model.model.model.layers.*.self_attn.v_proj", "v.blk.*.attn_v", GgufRole::matrix},
    {"model.qwen2_model.model.model.layers.*.self_attn.o_proj", "v.blk.*.attn_out",
     GgufRole::matrix},
    {"model.qwen2_model.model.model.layers.*.mlp.gate_proj", "v.blk.*.ffn_gate", GgufRole::matrix},
    {"model.qwen2_model.model.model.layers.*.mlp.up_proj", "v.blk.*.ffn_up", GgufRole::matrix},
    {"model.qwen2_model.model.model.layers.*.mlp.down_proj", "v.blk.*.ffn_down", GgufRole::matrix},
};

// What llama.cpp has built in.
constexpr std::int64_t kImageSize = 1024, kTileSize = 768;
constexpr std::int64_t kQueries1024 = 256, kQueries768 = 144;
constexpr double kEncoderRopeTheta = 1e6;
constexpr std::uint32_t kLeastTiles = 2, kMostTiles = 6;

void check_views_for_gguf(const Ocr2Config& config, GgufLimits& limits) {
  const ReadingSettings& reading = config.reading;
  limits.need(config.decoder_reads == DecoderReads::queries, "lectern.decoder_reads", "\"queries\"",
              fmt::format("\"{}\"", name_of(config.decoder_reads)));
  limits.need(config.queries_768 == kQueries768, "lectern.queries_768", kQueries768,
              config.queries_768);
  limits.need(config.queries_1024 == kQueries1024, "lectern.queries_1024", kQueries1024,
              config.queries_1024);
  limits.need(!reading.by_pieces, "lectern.read_by", "\"page\"", "\"pieces\"");
  limits.need(reading.global_size == kImageSize, "lectern.global_size", kImageSize,
              reading.global_size);
  limits.need(reading.crop, "lectern.crop", "true (larger pictures are cut into tiles)", "false");
  limits.need(!reading.crop || reading.tile_size == kTileSize, "lectern.tile_size", kTileSize,
              reading.tile_size);
}

GgufType language_type(const ExportOptions& options) {
  return options.type.value_or(GgufType::f32);
}

/// Four bits are too few for the encoder's narrow rows: the vision file then has eight.
GgufType vision_type(const ExportOptions& options) {
  const GgufType type = language_type(options);
  return options.vision_type.value_or(type == GgufType::q4_0 ? GgufType::q8_0 : type);
}

void check_gguf(const ExportSource& source, const ExportOptions& options) {
  if (options.dtype != DType::f32)
    fail<ConfigError>("export: --format gguf takes --type, not --dtype");
  const Ocr2Config& config = ocr2::config_of(source);
  GgufLimits limits;
  check_gguf_decoder(source.model(), limits);
  check_gguf_sam(config.sam, limits);
  limits.need(config.encoder.rope_theta == kEncoderRopeTheta,
              "vision_config.encoder_config.rope_parameters.rope_theta", kEncoderRopeTheta,
              config.encoder.rope_theta);
  check_views_for_gguf(config, limits);
  limits.check();
}

GgufMetadata vision_metadata(const Ocr2Config& config, GgufType type) {
  const auto u32 = [](std::int64_t value) { return static_cast<std::uint32_t>(value); };
  const std::string v = "clip.vision.";
  const std::vector<float> half(3, 0.5F);
  const EncoderConfig& encoder = config.encoder;
  return {{"general.architecture", std::string("clip")},
          {"general.type", std::string("mmproj")},
          {"general.name", std::string("DeepSeek-OCR 2")},
          {"general.file_type", gguf_file_type(type)},
          {"general.quantization_version", std::uint32_t{2}},
          {"clip.has_vision_encoder", true},
          {"clip.projector_type", std::string("deepseekocr2")},
          {"clip.use_gelu", true},
          {v + "image_size", u32(config.sam.image_size)},
          {v + "patch_size", u32(config.sam.patch_size)},
          {v + "projection_dim", u32(config.decoder.hidden_size)},
          {v + "embedding_length", u32(encoder.hidden_size)},
          {v + "feed_forward_length", u32(encoder.intermediate_size)},
          {v + "block_count", u32(encoder.num_hidden_layers)},
          {v + "attention.head_count", u32(encoder.num_attention_heads)},
          {v + "attention.head_count_kv", u32(encoder.num_key_value_heads)},
          {v + "attention.layer_norm_epsilon", static_cast<float>(encoder.rms_norm_eps)},
          {v + "image_mean", half},
          {v + "image_std", half},
          {v + "window_size", u32(config.sam.window_size)},
          {v + "sam.block_count", u32(config.sam.num_hidden_layers)},
          {v + "sam.embedding_length", u32(config.sam.hidden_size)},
          {v + "sam.head_count", u32(config.sam.num_attention_heads)},
          {v + "preproc_min_tiles", kLeastTiles},
          {v + "preproc_max_tiles", kMostTiles}};
}

std::vector<GgufContent> gguf_contents(const ExportSource& source, const ExportOptions& options) {
  const auto decoder = gguf_decoder_rules(), vision = gguf_vision_rules();
  GgufContent language = {
      "model.gguf",
      gguf_decoder_metadata(source.model(), "DeepSeek-OCR 2", language_type(options)),
      {decoder.begin(), decoder.end()},
      language_type(options)};
  GgufContent sight = {"mmproj.gguf",
                       vision_metadata(ocr2::config_of(source), vision_type(options)),
                       {vision.begin(), vision.end()},
                       vision_type(options)};
  sight.rules.insert(sight.rules.end(), std::begin(kEncoderRules), std::end(kEncoderRules));
  return {language, sight};
}

}  // namespace

ExportLayout ocr2::gguf_layout() {
  return {"ocr2", "gguf", check_gguf,
          [](const ExportSource& source, const std::filesystem::path& folder,
             const ExportOptions& options) {
            write_gguf(source, folder, gguf_contents(source, options));
            return std::ssize(source.tensors());
          },
          [](const ExportSource& source, const std::filesystem::path& folder,
             const ExportOptions& options) {
            verify_gguf(source, folder, gguf_contents(source, options));
          }};
}

}  // namespace lectern
