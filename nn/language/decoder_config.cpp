#include "nn/language/decoder_config.h"

#include "core/error.h"
#include "core/io/fields.h"
#include "nn/heads.h"
#include "nn/unit_work.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace lectern {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxExperts = 1 << 14;

// In doubles: sizes from a hostile file do not overflow.
double swiglu(double width, double rows) { return 3 * width * rows; }

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

}  // namespace

bool DecoderConfig::is_sparse() const {
  return std::find(layer_is_sparse.begin(), layer_is_sparse.end(), true) != layer_is_sparse.end();
}

double parse_rope_theta(const Fields& in, double fallback) {
  if (!in.has("rope_parameters")) return in.number("rope_theta", fallback, 1.0, 1e12);
  const Fields rope = in.object("rope_parameters");
  rope.only("rope_type", "default");
  return rope.number("rope_theta", fallback, 1.0, 1e12);
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
