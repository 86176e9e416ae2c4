#include "nn/ocr2/config.h"

#include "core/error.h"
#include "core/io/fields.h"
#include "core/io/file.h"
#include "nn/ocr2/model.h"
#include "nn/other_fields.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <string_view>

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
  in.only("tie_word_embeddings", false);
  in.only("attention_bias", true);  // of q, k and v, as Qwen2 has it
  check_full_attention(in, out.num_hidden_layers);
  // Windows count only where use_sliding_window is on; there are no tokens of its own.
  check_other_fields(
      in, {"sliding_window", "max_window_layers", "bos_token_id", "eos_token_id", "pad_token_id"});
  check_heads(in.where(), out.hidden_size, out.num_attention_heads, out.num_key_value_heads);
  check_even_head(in.where(), out.head_dim());
  return out;
}

/// Fields at the top of the original layout that are not the language model's.
bool is_of_the_whole(std::string_view field) {
  constexpr std::array<std::string_view, 8> kFields = {
      "language_config", "vision_config", "projector_config", "candidate_resolutions",
      "global_view_pos", "tile_tag",      "image_token_id",   "lectern"};
  return std::find(kFields.begin(), kFields.end(), field) != kFields.end() || is_bookkeeping(field);
}

/// The published file gives the language model's fields in `language_config` and again at the top;
/// its own program reads the top, vLLM the other. Throws ConfigError where they disagree.
json language_fields(const Fields& in, const json& root) {
  in.object("language_config");
  json out = in.raw("language_config");
  for (const auto& [name, value] : root.items()) {
    if (is_of_the_whole(name) || value.is_null()) continue;
    json& inner = out[name];
    if (inner.is_null()) inner = value;
    if (inner != value)
      fail<ConfigError>(fmt::format("{}.{}: must agree with language_config.{} {}, got {}",
                                    in.where(), name, name, inner.dump(), value.dump()));
  }
  return out;
}

void parse_original_sam(const Fields& vision, const Fields& sam, SamConfig& out) {
  const SamConfig defaults;
  out.hidden_size = sam.size("width", 0);
  out.num_hidden_layers = sam.size("layers", 0, 1, 1024);
  out.num_attention_heads = sam.size("heads", 0);
  out.global_attn_indexes = sam.sizes("global_attn_indexes", {2, 5, 8, 11}, 0);
  out.downsample_channels = sam.sizes("downsample_channels", {512, 896}, 1);
  out.output_channels = sam.size("output_channels", defaults.output_channels);
  out.patch_size = sam.size("patch_size", defaults.patch_size);
  out.window_size = sam.size("window_size", defaults.window_size);
  out.image_size = sam.size("image_size", vision.size("image_size", defaults.image_size));
  out.mlp_dim = sam.size("mlp_dim", 4 * out.hidden_size);
  check_other_fields(sam);
  check_sam(sam.where(), out, kOriginalNames);
}

void parse_original_encoder(const Fields& qwen, EncoderConfig& out) {
  out.hidden_size = qwen.size("dim", out.hidden_size);
  out.intermediate_size = qwen.size("intermediate_size", out.intermediate_size);
  out.num_hidden_layers = qwen.size("layers", out.num_hidden_layers);
  out.num_attention_heads = qwen.size("heads", out.num_attention_heads);
  out.num_key_value_heads = qwen.size("kv_heads", out.num_key_value_heads);
  out.rope_theta = parse_rope_theta(qwen, out.rope_theta);
  check_other_fields(qwen);
  check_heads(qwen.where(), out.hidden_size, out.num_attention_heads, out.num_key_value_heads,
              kOriginalEncoderNames);
  check_even_head(qwen.where(), out.head_dim());
}

void check_projector(const Fields& in, const Ocr2Config& config) {
  if (!in.has("projector_config")) return;
  const Fields projector = in.object("projector_config");
  projector.only("projector_type", "linear");
  projector.only("input_dim", config.encoder.hidden_size);
  projector.only("n_embed", config.decoder.hidden_size);
  check_other_fields(projector);
}

/// The original layout keeps the two encoders under vision_config.width.
Ocr2Config parse_original(const Fields& in, const json& root) {
  Ocr2Config out;
  const json language = language_fields(in, root);
  Fields text(language, in.where() + ".language_config");
  text.watch();
  out.decoder = parse_decoder(text);
  const Fields vision = in.object("vision_config");
  const Fields width = vision.object("width");
  parse_original_sam(vision, width.object("sam_vit_b"), out.sam);
  parse_original_encoder(width.object("qwen2-0-5b"), out.encoder);
  refuse_other_fields(width);
  // Readers build the encoders by their names in `width`; mlp_ratio is that of OCR 1's CLIP.
  check_other_fields(vision, {"mlp_ratio", "model_name"});
  check_projector(in, out);
  in.only("global_view_pos", "head");
  in.only("tile_tag", "2D");
  out.image_token_id = in.size("image_token_id", 128815, 0, out.decoder.vocab_size - 1);
  return out;
}

Ocr2Config parse_hf(const Fields& in) {
  Ocr2Config out;
  const Fields vision = in.object("vision_config");
  out.sam = parse_sam(vision.object("sam_config"));
  out.encoder = parse_encoder(vision.object("encoder_config"));
  check_other_fields(vision);
  out.decoder = parse_decoder(in.object("text_config"));
  out.image_token_id = in.size("image_token_id", 128815, 0, out.decoder.vocab_size - 1);
  in.only("image_token_index", out.image_token_id);  // its name in older files of such models
  in.only("tie_word_embeddings", false);
  in.has("lectern");
  // What texts begin and end with is text_config's.
  check_other_fields(in, {"bos_token_id", "eos_token_id", "pad_token_id"});
  return out;
}

/// Our own settings, all of which count.
void parse_extras(const Fields& extra, Ocr2Config& out) {
  out.residual = parse_residual(extra);
  out.queries_768 = extra.size("queries_768", 144);
  out.queries_1024 = extra.size("queries_1024", 256);
  out.decoder_reads =
      decoder_reads_from(extra.choice("decoder_reads", "queries", {"queries", "visual"}));
  parse_reading(extra, out.reading);
  FieldKeys of_streams;  // not read where the residual is plain
  describe(out.residual, of_streams);
  refuse_other_fields(extra, {of_streams.keys().begin(), of_streams.keys().end()});
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
  Fields in(root, name);
  in.watch();
  Ocr2Config out = in.has("language_config") ? parse_original(in, root) : parse_hf(in);
  if (out.sam.downsample_channels[1] != out.encoder.hidden_size)
    fail<ConfigError>(fmt::format(
        "{}: sam_config.downsample_channels[1] must equal encoder_config.hidden_size {}, got {}",
        name, out.encoder.hidden_size, out.sam.downsample_channels[1]));
  if (in.has("lectern")) parse_extras(in.object("lectern"), out);
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
