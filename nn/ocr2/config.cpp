#include "nn/ocr2/config.h"

#include "core/error.h"
#include "core/io/file.h"
#include "core/ops/sinkhorn.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace lectern {
namespace {

using nlohmann::json;

constexpr double kMaxParameters = 1e13;
constexpr std::int64_t kMaxExperts = 1 << 14;

/// Reads fields of one JSON object, with messages that name file and field.
class Fields {
 public:
  Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object())
      fail<ConfigError>(fmt::format("{}: must be an object, got {}", where_, kind(object)));
  }

  bool has(const char* field) const { return object_.contains(field) && !object_[field].is_null(); }

  std::int64_t size(const char* field, std::int64_t fallback, std::int64_t low = 1,
                    std::int64_t high = std::int64_t{1} << 31) const {
    if (!has(field)) {
      if (fallback < low || fallback > high)
        fail<ConfigError>(fmt::format("{}.{}: is required", where_, field));
      return fallback;
    }
    const json& value = object_[field];
    if (!value.is_number_integer() || value.get<std::int64_t>() < low ||
        value.get<std::int64_t>() > high)
      fail<ConfigError>(fmt::format("{}.{}: must be an integer from {} to {}, got {}", where_,
                                    field, low, high, value.dump()));
    return value.get<std::int64_t>();
  }

  double number(const char* field, double fallback, double low, double high) const {
    if (!has(field)) return fallback;
    const json& value = object_[field];
    if (!value.is_number() || !(value.get<double>() >= low && value.get<double>() <= high))
      fail<ConfigError>(fmt::format("{}.{}: must be a number from {} to {}, got {}", where_, field,
                                    low, high, value.dump()));
    return value.get<double>();
  }

  bool boolean(const char* field, bool fallback) const {
    if (!has(field)) return fallback;
    if (!object_[field].is_boolean())
      fail<ConfigError>(fmt::format("{}.{}: must be true or false, got {}", where_, field,
                                    object_[field].dump()));
    return object_[field].get<bool>();
  }

  std::string text(const char* field, const std::string& fallback) const {
    if (!has(field)) return fallback;
    if (!object_[field].is_string())
      fail<ConfigError>(
          fmt::format("{}.{}: must be a string, got {}", where_, field, object_[field].dump()));
    return object_[field].get<std::string>();
  }

  std::string choice(const char* field, const std::string& fallback,
                     const std::vector<std::string>& words) const {
    const std::string word = text(field, fallback);
    if (std::find(words.begin(), words.end(), word) == words.end())
      fail<ConfigError>(fmt::format("{}.{}: must be one of {}, got \"{}\"", where_, field,
                                    json(words).dump(), word));
    return word;
  }

  std::vector<std::int64_t> sizes(const char* field, std::vector<std::int64_t> fallback,
                                  std::int64_t low) const {
    if (!has(field)) return fallback;
    const json& value = object_[field];
    std::vector<std::int64_t> out;
    const bool fits = value.is_array() && value.size() <= 4096 &&
                      std::all_of(value.begin(), value.end(), [&](const json& item) {
                        return item.is_number_integer() && item.get<std::int64_t>() >= low &&
                               item.get<std::int64_t>() <= (std::int64_t{1} << 31);
                      });
    if (!fits)
      fail<ConfigError>(fmt::format("{}.{}: must be a list of integers of {} or more, got {}",
                                    where_, field, low, value.dump()));
    return value.get<std::vector<std::int64_t>>();
  }

  /// A field that may only have one value, because the model has no other behaviour.
  void only(const char* field, const json& expected) const {
    if (has(field) && object_[field] != expected)
      fail<ConfigError>(fmt::format("{}.{}: only {} is supported, got {}", where_, field,
                                    expected.dump(), object_[field].dump()));
  }

  Fields object(const char* field) const {
    if (!has(field)) fail<ConfigError>(fmt::format("{}.{}: is required", where_, field));
    return Fields(object_[field], where_ + "." + field);
  }

  double rope_theta(double fallback) const {
    if (!has("rope_parameters")) return number("rope_theta", fallback, 1.0, 1e12);
    const Fields rope = object("rope_parameters");
    rope.only("rope_type", "default");
    return rope.number("rope_theta", fallback, 1.0, 1e12);
  }

  const json& raw(const char* field) const { return object_[field]; }
  const std::string& where() const { return where_; }

 private:
  static const char* kind(const json& value) { return value.type_name(); }
  const json& object_;
  std::string where_;
};

/// What a layout calls the sizes that check_heads compares.
struct HeadNames {
  const char* width = "hidden_size";
  const char* heads = "num_attention_heads";
  const char* kv_heads = "num_key_value_heads";
};
constexpr HeadNames kOriginalNames = {"width", "heads", "heads"};
constexpr HeadNames kOriginalEncoderNames = {"dim", "heads", "kv_heads"};

void check_heads(const std::string& where, std::int64_t hidden, std::int64_t heads,
                 std::int64_t kv_heads, const HeadNames& names = {}) {
  if (hidden % heads != 0)
    fail<ConfigError>(fmt::format("{}.{}: must be a multiple of {} {}, got {}", where, names.width,
                                  names.heads, heads, hidden));
  if (heads % kv_heads != 0)
    fail<ConfigError>(fmt::format("{}.{}: must be a multiple of {} {}, got {}", where, names.heads,
                                  names.kv_heads, kv_heads, heads));
}

void check_even_head(const std::string& where, std::int64_t head_dim) {
  if (head_dim % 2 != 0)
    fail<ConfigError>(
        fmt::format("{}.head_dim: must be even (rotary pairs), got {}", where, head_dim));
}

void check_sam(const std::string& where, const SamConfig& sam, const HeadNames& names = {}) {
  check_heads(where, sam.hidden_size, sam.num_attention_heads, sam.num_attention_heads, names);
  if (sam.image_size % sam.patch_size != 0)
    fail<ConfigError>(fmt::format("{}.image_size: must be a multiple of patch_size {}, got {}",
                                  where, sam.patch_size, sam.image_size));
  if (sam.downsample_channels.size() != 2)
    fail<ConfigError>(fmt::format("{}.downsample_channels: must have 2 entries, got {}", where,
                                  sam.downsample_channels.size()));
}

SamConfig parse_sam(const Fields& in) {
  SamConfig out;
  out.hidden_size = in.size("hidden_size", 768);
  out.output_channels = in.size("output_channels", 256);
  out.num_hidden_layers = in.size("num_hidden_layers", 12, 1, 1024);
  out.num_attention_heads = in.size("num_attention_heads", 12);
  out.num_channels = in.size("num_channels", 3);
  in.only("num_channels", 3);
  out.image_size = in.size("image_size", 1024, 1, 1 << 16);
  out.patch_size = in.size("patch_size", 16, 1, 1 << 12);
  out.window_size = in.size("window_size", 14, 1, 1 << 12);
  out.global_attn_indexes = in.sizes("global_attn_indexes", {2, 5, 8, 11}, 0);
  const double ratio = in.number("mlp_ratio", 4.0, 1e-3, 64.0);
  out.mlp_dim =
      in.size("mlp_dim",
              static_cast<std::int64_t>(std::floor(static_cast<double>(out.hidden_size) * ratio)));
  out.layer_norm_eps = in.number("layer_norm_eps", 1e-6, 0, 1);
  out.downsample_channels = in.sizes("downsample_channels", {512, 896}, 1);
  out.initializer_range = in.number("initializer_range", 0.02, 0, 10);
  in.only("hidden_act", "gelu");
  in.only("qkv_bias", true);
  in.only("use_abs_pos", true);
  in.only("use_rel_pos", true);
  check_sam(in.where(), out);
  return out;
}

EncoderConfig parse_encoder(const Fields& in) {
  EncoderConfig out;
  out.hidden_size = in.size("hidden_size", 0);
  out.intermediate_size = in.size("intermediate_size", 0);
  out.num_hidden_layers = in.size("num_hidden_layers", 0, 1, 4096);
  out.num_attention_heads = in.size("num_attention_heads", 0);
  out.num_key_value_heads = in.size("num_key_value_heads", out.num_attention_heads);
  out.max_position_embeddings = in.size("max_position_embeddings", 32768);
  out.rms_norm_eps = in.number("rms_norm_eps", 1e-6, 0, 1);
  out.rope_theta = in.rope_theta(10000.0);
  out.initializer_range = in.number("initializer_range", 0.02, 0, 10);
  out.vocab_size = in.size("vocab_size", 151936);
  in.only("hidden_act", "silu");
  in.only("use_sliding_window", false);
  check_heads(in.where(), out.hidden_size, out.num_attention_heads, out.num_key_value_heads);
  check_even_head(in.where(), out.head_dim());
  return out;
}

std::vector<bool> parse_layer_types(const Fields& in, std::int64_t layers) {
  std::vector<bool> out;
  if (!in.has("mlp_layer_types")) {
    const std::int64_t dense = in.size("first_k_dense_replace", -1, 0, layers);
    for (std::int64_t i = 0; i < layers; ++i) out.push_back(i >= dense);
    return out;
  }
  const json& types = in.raw("mlp_layer_types");
  const bool fits = types.is_array() && static_cast<std::int64_t>(types.size()) == layers &&
                    std::all_of(types.begin(), types.end(), [](const json& type) {
                      return type == "dense" || type == "sparse";
                    });
  if (!fits)
    fail<ConfigError>(
        fmt::format("{}.mlp_layer_types: must be {} entries of \"dense\" or \"sparse\", got {}",
                    in.where(), layers, types.dump()));
  for (const json& type : types) out.push_back(type == "sparse");
  return out;
}

TextConfig parse_text(const Fields& in) {
  TextConfig out;
  out.vocab_size = in.size("vocab_size", 0, 4);
  out.hidden_size = in.size("hidden_size", 0);
  out.intermediate_size = in.size("intermediate_size", 0);
  out.num_hidden_layers = in.size("num_hidden_layers", 0, 1, 4096);
  out.num_attention_heads = in.size("num_attention_heads", 0);
  out.num_key_value_heads = in.size("num_key_value_heads", out.num_attention_heads);
  check_heads(in.where(), out.hidden_size, out.num_attention_heads, out.num_key_value_heads);
  out.head_dim = in.size("head_dim", out.hidden_size / out.num_attention_heads);
  check_even_head(in.where(), out.head_dim);
  out.layer_is_sparse = parse_layer_types(in, out.num_hidden_layers);
  const bool sparse = std::find(out.layer_is_sparse.begin(), out.layer_is_sparse.end(), true) !=
                      out.layer_is_sparse.end();
  out.n_routed_experts = in.size("n_routed_experts", sparse ? 0 : 1, 1, kMaxExperts);
  out.n_shared_experts = in.size("n_shared_experts", sparse ? 0 : 1, 1, kMaxExperts);
  out.num_experts_per_tok = in.size("num_experts_per_tok", sparse ? 0 : 1, 1, out.n_routed_experts);
  out.moe_intermediate_size = in.size("moe_intermediate_size", sparse ? 0 : 1);
  out.routed_scaling_factor = in.number("routed_scaling_factor", 1.0, 0, 1e6);
  out.max_position_embeddings = in.size("max_position_embeddings", 8192);
  out.rms_norm_eps = in.number("rms_norm_eps", 1e-6, 0, 1);
  out.rope_theta = in.rope_theta(10000.0);
  out.initializer_range = in.number("initializer_range", 0.02, 0, 10);
  out.bos_token_id = in.size("bos_token_id", 0, 0, out.vocab_size - 1);
  out.eos_token_id = in.size("eos_token_id", 1, 0, out.vocab_size - 1);
  out.pad_token_id = in.size("pad_token_id", 2, 0, out.vocab_size - 1);
  in.only("hidden_act", "silu");
  in.only("attention_bias", false);
  in.only("mlp_bias", false);
  in.only("topk_method", "greedy");
  in.only("n_group", 1);
  in.only("topk_group", 1);
  in.only("use_mla", false);
  in.only("norm_topk_prob", false);
  in.only("scoring_func", "softmax");
  in.only("tie_word_embeddings", false);
  return out;
}

void parse_reading(const Fields& in, ReadingSettings& out) {
  out.global_size = in.size("global_size", out.global_size, 1, 1 << 16);
  out.tile_size = in.size("tile_size", out.tile_size, 1, 1 << 16);
  out.crop = in.boolean("crop", out.crop);
  out.prompt = in.text("prompt", out.prompt);
  out.by_pieces = in.choice("read_by", "page", {"page", "pieces"}) == "pieces";
  out.piece_width = in.size("piece_width", out.piece_width, 1, 1 << 16);
  out.piece_dpi = in.number("piece_dpi", out.piece_dpi, 18, 1200);
  out.piece_margin = in.size("piece_margin", std::min(out.piece_margin, (out.global_size - 1) / 2),
                             0, (out.global_size - 1) / 2);
  out.piece_text_height = in.size("piece_text_height", out.piece_text_height, 0, 1024);
  out.piece_at_top = in.choice("piece_at", "middle", {"middle", "top"}) == "top";
}

ResidualConfig parse_residual(const Fields& in) {
  ResidualConfig out;
  out.kind = residual_kind_from(in.choice("residual", "plain", {"plain", "hc", "mhc"}));
  if (out.is_plain()) return out;
  out.convention = stream_convention_from(
      in.choice("convention", "deepseek-v4", {"paper", "megatron", "deepseek-v4"}));
  out.merge = stream_merge_from(in.choice("merge", "head", {"head", "mean"}));
  set_residual_in(in.choice("residual_in", "both", {"both", "encoder", "decoder"}), out);
  out.exact = in.boolean("exact_h_res", out.exact);
  out.streams = in.size("streams", out.streams, 1, out.exact ? 4 : 8);
  out.iterations = in.size("sinkhorn_iterations", out.iterations, 1, 1000);
  out.h_pre = in.boolean("h_pre", out.h_pre);
  out.h_post = in.boolean("h_post", out.h_post);
  out.h_res = in.boolean("h_res", out.h_res);
  return out;
}

/// The original layout keeps the two encoders under vision_config.width.
Ocr2Config parse_original(const Fields& in) {
  Ocr2Config out;
  out.text = parse_text(in.object("language_config"));
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
  out.image_token_id = in.size("image_token_id", 128815, 0, out.text.vocab_size - 1);
  return out;
}

}  // namespace

std::string_view name_of(DecoderReads reads) {
  return reads == DecoderReads::visual ? "visual" : "queries";
}

DecoderReads decoder_reads_from(std::string_view name) {
  if (name == "queries") return DecoderReads::queries;
  if (name == "visual") return DecoderReads::visual;
  fail<ConfigError>(
      fmt::format("decoder_reads must be \"queries\" or \"visual\", got \"{}\"", name));
}

bool SamConfig::is_global(std::int64_t layer) const {
  return std::find(global_attn_indexes.begin(), global_attn_indexes.end(), layer) !=
         global_attn_indexes.end();
}

std::int64_t Ocr2Config::image_tokens(std::int64_t view_pixels) const {
  const std::int64_t half = (view_pixels / sam.patch_size + 1) / 2;
  const std::int64_t quarter = (half + 1) / 2;
  return quarter * quarter;
}

std::int64_t Ocr2Config::query_count(std::int64_t view_pixels) const {
  if (decoder_reads == DecoderReads::visual) return 0;
  return image_tokens(view_pixels) <= queries_768 ? queries_768 : queries_1024;
}

std::int64_t Ocr2Config::decoder_tokens(std::int64_t view_pixels) const {
  return decoder_reads == DecoderReads::visual ? image_tokens(view_pixels)
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
    out.text = parse_text(in.object("text_config"));
    out.image_token_id = in.size("image_token_id", 128815, 0, out.text.vocab_size - 1);
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
  if (parameter_count(out) > kMaxParameters)
    fail<ConfigError>(fmt::format("{}: sizes must give at most {:.0e} parameters, got {:.1e}", name,
                                  kMaxParameters, parameter_count(out)));
  return out;
}

Ocr2Config read_ocr2_config(const std::filesystem::path& path) {
  return parse_ocr2_config(parse_json(read_file(path, std::size_t{16} << 20), path.string()),
                           path.string());
}

}  // namespace lectern
