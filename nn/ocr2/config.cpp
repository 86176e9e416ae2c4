#include "nn/ocr2/config.h"

#include "core/error.h"
#include "core/io/fields.h"
#include "core/io/file.h"
#include "nn/ocr2/model.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace lectern {
namespace {

using nlohmann::json;

constexpr double kMaxParameters = 1e13;

constexpr HeadNames kOriginalNames = {"width", "heads", "heads"};
constexpr HeadNames kOriginalEncoderNames = {"dim", "heads", "kv_heads"};

EncoderConfig parse_encoder(const Fields& in) {
  EncoderConfig out;
  out.hidden_size = in.size("hidden_size", 0);
  out.intermediate_size = in.size("intermediate_size", 0);
  out.num_hidden_layers = in.size("num_hidden_layers", 0, 1, 4096);
  out.num_attention_heads = in.size("num_attention_heads", 0);
  out.num_key_value_heads = in.size("num_key_value_heads", out.num_attention_heads);
  out.max_position_embeddings = in.size("max_position_embeddings", 32768);
  out.rms_norm_eps = in.number("rms_norm_eps", 1e-6, 0, 1);
  out.rope_theta = parse_rope_theta(in, 10000.0);
  out.initializer_range = in.number("initializer_range", 0.02, 0, 10);
  out.vocab_size = in.size("vocab_size", 151936);
  in.only("hidden_act", "silu");
  in.only("use_sliding_window", false);
  check_heads(in.where(), out.hidden_size, out.num_attention_heads, out.num_key_value_heads);
  check_even_head(in.where(), out.head_dim());
  return out;
}

/// The original layout keeps the two encoders under vision_config.width.
Ocr2Config parse_original(const Fields& in) {
  Ocr2Config out;
  out.decoder = parse_decoder(in.object("language_config"));
  const Fields vision = in.object("vision_config");
  const Fields width = vision.object("width");
  const Fields qwen = width.object("qwen2-0-5b");
  const Fields sam = width.object("sam_vit_b");
  const SamConfig sam_defaults;
  out.sam.hidden_size = sam.size("width", 0);
  out.sam.num_hidden_layers = sam.size("layers", 0, 1, 1024);
  out.sam.num_attention_heads = sam.size("heads", 0);
  out.sam.global_attn_indexes = sam.sizes("global_attn_indexes", {2, 5, 8, 11}, 0);
  out.sam.downsample_channels = sam.sizes("downsample_channels", {512, 896}, 1);
  out.sam.output_channels = sam.size("output_channels", sam_defaults.output_channels);
  out.sam.patch_size = sam.size("patch_size", sam_defaults.patch_size);
  out.sam.window_size = sam.size("window_size", sam_defaults.window_size);
  out.sam.image_size = sam.size("image_size", vision.size("image_size", sam_defaults.image_size));
  out.sam.mlp_dim = sam.size("mlp_dim", 4 * out.sam.hidden_size);
  check_sam(sam.where(), out.sam, kOriginalNames);
  const EncoderConfig encoder_defaults;
  out.encoder.hidden_size = qwen.size("dim", encoder_defaults.hidden_size);
  out.encoder.intermediate_size =
      qwen.size("intermediate_size", encoder_defaults.intermediate_size);
  out.encoder.num_hidden_layers = qwen.size("layers", encoder_defaults.num_hidden_layers);
  out.encoder.num_attention_heads = qwen.size("heads", encoder_defaults.num_attention_heads);
  out.encoder.num_key_value_heads = qwen.size("kv_heads", encoder_defaults.num_key_value_heads);
  out.encoder.rope_theta = qwen.number("rope_theta", encoder_defaults.rope_theta, 1.0, 1e12);
  check_heads(qwen.where(), out.encoder.hidden_size, out.encoder.num_attention_heads,
              out.encoder.num_key_value_heads, kOriginalEncoderNames);
  check_even_head(qwen.where(), out.encoder.head_dim());
  out.image_token_id = in.size("image_token_id", 128815, 0, out.decoder.vocab_size - 1);
  return out;
}

}  // namespace

std::unique_ptr<ModelConfig> Ocr2Config::clone() const {
  return std::make_unique<Ocr2Config>(*this);
}

std::unique_ptr<OcrModel> Ocr2Config::make(std::uint64_t seed, DType dtype, ParameterValues values,
                                           const ModelPlacement& placement) const {
  return std::make_unique<Ocr2Model>(*this, seed, dtype, values, placement);
}

void Ocr2Config::apply(const ModelSettings& settings) {
  if (settings.residual) residual = *settings.residual;
  if (settings.decoder_reads != "config")
    decoder_reads = decoder_reads_from(settings.decoder_reads);
  if (settings.queries > 0) queries_768 = queries_1024 = settings.queries;
}

std::string_view name_of(DecoderReads reads) {
  return reads == DecoderReads::visual ? "visual" : "queries";
}

DecoderReads decoder_reads_from(std::string_view name) {
  if (name == "queries") return DecoderReads::queries;
  if (name == "visual") return DecoderReads::visual;
  fail<ConfigError>(
      fmt::format("decoder_reads must be \"queries\" or \"visual\", got \"{}\"", name));
}

std::int64_t Ocr2Config::visual_tokens(std::int64_t view_pixels) const {
  const std::int64_t half = (view_pixels / sam.patch_size + 1) / 2;
  const std::int64_t quarter = (half + 1) / 2;
  return quarter * quarter;
}

std::int64_t Ocr2Config::query_count(std::int64_t view_pixels) const {
  if (decoder_reads == DecoderReads::visual) return 0;
  return visual_tokens(view_pixels) <= queries_768 ? queries_768 : queries_1024;
}

std::int64_t Ocr2Config::decoder_tokens(std::int64_t view_pixels) const {
  return decoder_reads == DecoderReads::visual ? visual_tokens(view_pixels)
                                               : query_count(view_pixels);
}

Ocr2Config parse_ocr2_config(const json& root, const std::string& name) {
  const Fields in(root, name);
  Ocr2Config out;
  if (in.has("language_config")) {
    out = parse_original(in);
  } else {
    const Fields vision = in.object("vision_config");
    out.sam = parse_sam(vision.object("sam_config"));
    out.encoder = parse_encoder(vision.object("encoder_config"));
    out.decoder = parse_decoder(in.object("text_config"));
    out.image_token_id = in.size("image_token_id", 128815, 0, out.decoder.vocab_size - 1);
    in.only("tie_word_embeddings", false);
  }
  if (out.sam.downsample_channels[1] != out.encoder.hidden_size)
    fail<ConfigError>(fmt::format(
        "{}: sam_config.downsample_channels[1] must equal encoder_config.hidden_size {}, got {}",
        name, out.encoder.hidden_size, out.sam.downsample_channels[1]));
  if (in.has("lectern")) {
    const Fields extra = in.object("lectern");
    out.residual = parse_residual(extra);
    out.queries_768 = extra.size("queries_768", 144);
    out.queries_1024 = extra.size("queries_1024", 256);
    out.decoder_reads =
        decoder_reads_from(extra.choice("decoder_reads", "queries", {"queries", "visual"}));
    parse_reading(extra, out.reading);
  }
  if (out.parameter_count() > kMaxParameters)
    fail<ConfigError>(fmt::format("{}: sizes must give at most {:.0e} parameters, got {:.1e}", name,
                                  kMaxParameters, out.parameter_count()));
  return out;
}

Ocr2Config read_ocr2_config(const std::filesystem::path& path) {
  return parse_ocr2_config(parse_json(read_file(path, std::size_t{16} << 20), path.string()),
                           path.string());
}

}  // namespace lectern
