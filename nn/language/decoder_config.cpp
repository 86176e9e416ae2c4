#include "nn/language/decoder_config.h"

#include "core/error.h"
#include "core/io/fields.h"
#include "nn/heads.h"
#include "nn/other_fields.h"
#include "nn/unit_work.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace lectern {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxExperts = 1 << 14;

// In doubles: sizes from a hostile file do not overflow.
double swiglu(double width, double rows) { return 3 * width * rows; }

/// The layer from which all are sparse, where the file says it so.
std::vector<bool> dense_first(const Fields& in, std::int64_t layers) {
  const std::int64_t dense = in.size("first_k_dense_replace", -1, 0, layers);
  std::vector<bool> out;
  for (std::int64_t i = 0; i < layers; ++i) out.push_back(i >= dense);
  return out;
}

std::vector<bool> parse_layer_types(const Fields& in, std::int64_t layers) {
  in.only("moe_layer_freq", 1);
  if (!in.has("mlp_layer_types")) return dense_first(in, layers);
  const json& types = in.raw("mlp_layer_types");
  const bool fits = types.is_array() && static_cast<std::int64_t>(types.size()) == layers &&
                    std::all_of(types.begin(), types.end(), [](const json& type) {
                      return type == "dense" || type == "sparse";
                    });
  if (!fits)
    fail<ConfigError>(
        fmt::format("{}.mlp_layer_types: must be {} entries of \"dense\" or \"sparse\", got {}",
                    in.where(), layers, types.dump()));
  std::vector<bool> out;
  for (const json& type : types) out.push_back(type == "sparse");
  if (in.has("first_k_dense_replace") && dense_first(in, layers) != out)
    fail<ConfigError>(
        fmt::format("{}.first_k_dense_replace: must agree with mlp_layer_types {}, "
                    "got {}",
                    in.where(), types.dump(), in.raw("first_k_dense_replace").dump()));
  return out;
}

/// Settings of the published models with one value that this decoder has.
void check_one_way(const Fields& in) {
  in.only("hidden_act", "silu");
  in.only("attention_bias", false);
  in.only("mlp_bias", false);
  in.only("topk_method", "greedy");
  in.only("n_group", 1);
  in.only("topk_group", 1);
  in.only("norm_topk_prob", false);
  in.only("scoring_func", "softmax");
  in.only("tie_word_embeddings", false);
  in.only("lm_head", true);
  in.only("rm_head", false);
  in.only("use_sliding_window", false);
  in.only("num_nextn_predict_layers", 0);
  // Sizes of latent attention say that it is meant, whatever use_mla says.
  in.only("use_mla", false);
  for (const char* field :
       {"kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"})
    in.only(field, 0);
}

}  // namespace

bool DecoderConfig::is_sparse() const {
  return std::find(layer_is_sparse.begin(), layer_is_sparse.end(), true) != layer_is_sparse.end();
}

double parse_rope_theta(const Fields& in, double fallback) {
  constexpr double kLow = 1.0, kHigh = 1e12;
  const double beside = in.number("rope_theta", fallback, kLow, kHigh);
  double theta = beside;
  in.only("partial_rotary_factor", 1.0);
  // transformers 5 says all in rope_parameters, 4 said what is not default in rope_scaling.
  for (const char* field : {"rope_parameters", "rope_scaling"}) {
    if (!in.has(field)) continue;
    const Fields rope = in.object(field);
    for (const char* type : {"rope_type", "type"}) rope.only(type, "default");
    for (const char* factor : {"factor", "partial_rotary_factor", "attention_factor"})
      rope.only(factor, 1.0);
    theta = rope.number("rope_theta", theta, kLow, kHigh);
    if (in.has("rope_theta") && theta != beside)
      fail<ConfigError>(fmt::format("{}.rope_theta: must agree with {}.rope_theta {}, got {}",
                                    in.where(), field, theta, beside));
    refuse_other_fields(rope, {"original_max_position_embeddings"});
  }
  return theta;
}

void check_full_attention(const Fields& in, std::int64_t layers) {
  if (!in.has("layer_types")) return;
  const json& types = in.raw("layer_types");
  const bool fits = types.is_array() && static_cast<std::int64_t>(types.size()) == layers &&
                    std::all_of(types.begin(), types.end(),
                                [](const json& type) { return type == "full_attention"; });
  if (!fits)
    fail<ConfigError>(
        fmt::format("{}.layer_types: only {} entries of \"full_attention\" are supported, got {}",
                    in.where(), layers, types.dump()));
}

DecoderConfig parse_decoder(const Fields& in) {
  DecoderConfig out;
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
  const bool sparse = out.is_sparse();
  out.n_routed_experts = in.size("n_routed_experts", sparse ? 0 : 1, 1, kMaxExperts);
  in.only("num_experts", out.n_routed_experts);
  out.n_shared_experts = in.size("n_shared_experts", sparse ? 0 : 1, 1, kMaxExperts);
  out.num_experts_per_tok = in.size("num_experts_per_tok", sparse ? 0 : 1, 1, out.n_routed_experts);
  out.moe_intermediate_size = in.size("moe_intermediate_size", sparse ? 0 : 1);
  out.routed_scaling_factor = in.number("routed_scaling_factor", 1.0, 0, 1e6);
  out.max_position_embeddings = in.size("max_position_embeddings", 8192);
  out.rms_norm_eps = in.number("rms_norm_eps", 1e-6, 0, 1);
  out.rope_theta = parse_rope_theta(in, 10000.0);
  out.initializer_range = in.number("initializer_range", 0.02, 0, 10);
  out.bos_token_id = in.size("bos_token_id", 0, 0, out.vocab_size - 1);
  out.eos_token_id = in.size("eos_token_id", 1, 0, out.vocab_size - 1);
  out.pad_token_id = in.size("pad_token_id", 2, 0, out.vocab_size - 1);
  check_full_attention(in, out.num_hidden_layers);
  check_one_way(in);
  // Losses of the published trainer; windows count only where use_sliding_window is on.
  check_other_fields(in, {"aux_loss_alpha", "seq_aux", "max_window_layers"});
  return out;
}

json to_json(const DecoderConfig& text) {
  json layer_types = json::array();
  for (const bool sparse : text.layer_is_sparse) layer_types.push_back(sparse ? "sparse" : "dense");
  return {{"vocab_size", text.vocab_size},
          {"hidden_size", text.hidden_size},
          {"intermediate_size", text.intermediate_size},
          {"num_hidden_layers", text.num_hidden_layers},
          {"num_attention_heads", text.num_attention_heads},
          {"num_key_value_heads", text.num_key_value_heads},
          {"head_dim", text.head_dim},
          {"hidden_act", "silu"},
          {"attention_bias", false},
          {"attention_dropout", 0.0},
          {"mlp_bias", false},
          {"n_routed_experts", text.n_routed_experts},
          {"n_shared_experts", text.n_shared_experts},
          {"num_experts_per_tok", text.num_experts_per_tok},
          {"moe_intermediate_size", text.moe_intermediate_size},
          {"mlp_layer_types", layer_types},
          {"n_group", 1},
          {"topk_group", 1},
          {"topk_method", "greedy"},
          {"routed_scaling_factor", text.routed_scaling_factor},
          {"max_position_embeddings", text.max_position_embeddings},
          {"rms_norm_eps", text.rms_norm_eps},
          {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", text.rope_theta}}},
          {"initializer_range", text.initializer_range},
          {"bos_token_id", text.bos_token_id},
          {"eos_token_id", text.eos_token_id},
          {"pad_token_id", text.pad_token_id},
          {"tie_word_embeddings", false},
          {"use_cache", true}};
}

double parameter_count(const DecoderConfig& text, const ResidualConfig& residual) {
  const double width = to_double(text.hidden_size), heads = to_double(text.num_attention_heads);
  const double rows = (heads + 2 * to_double(text.num_key_value_heads)) * to_double(text.head_dim);
  const double attention = rows * width + heads * to_double(text.head_dim) * width + 2 * width;
  const double experts = to_double(text.n_routed_experts),
               expert = to_double(text.moe_intermediate_size);
  const double sparse = experts * width + experts * swiglu(width, expert) +
                        swiglu(width, to_double(text.n_shared_experts) * expert);
  double count = 2 * to_double(text.vocab_size) * width + width +  // embedding, head, last norm
                 head_parameters(residual, width) +
                 2 * to_double(text.num_hidden_layers) * mapping_parameters(residual, width);
  for (const bool is_sparse : text.layer_is_sparse)
    count += attention + (is_sparse ? sparse : swiglu(width, to_double(text.intermediate_size)));
  return count;
}

}  // namespace lectern
