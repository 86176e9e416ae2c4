#include "core/error.h"
#include "core/ops/sinkhorn.h"
#include "nn/ocr2/config.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace lectern {

using nlohmann::json;

namespace {

/// Our own settings; other programs ignore the key.
json lectern_extras(const Ocr2Config& config) {
  json out = {{"queries_768", config.queries_768}, {"queries_1024", config.queries_1024}};
  write_reading(config.reading, out);
  if (config.decoder_reads != DecoderReads::queries)
    out["decoder_reads"] = std::string(name_of(config.decoder_reads));
  write_residual(config.residual, out);
  return out;
}

/// Programs that read the original layout have these values built in; a model with others would
/// load there and compute something else.
void check_original_can_hold(const Ocr2Config& config) {
  const DecoderConfig& text = config.decoder;
  const auto refuse = [](const char* field, double expected, double found) {
    fail<ConfigError>(
        fmt::format("export: the original layout needs {} {}, got {}", field, expected, found));
  };
  if (text.head_dim * text.num_attention_heads != text.hidden_size)
    refuse("text_config.head_dim = hidden_size / num_attention_heads =",
           static_cast<double>(text.hidden_size / text.num_attention_heads),
           static_cast<double>(text.head_dim));
  constexpr double kEpsilon = 1e-6;
  if (config.encoder.rms_norm_eps != kEpsilon)
    refuse("encoder_config.rms_norm_eps", kEpsilon, config.encoder.rms_norm_eps);
  if (config.sam.layer_norm_eps != kEpsilon)
    refuse("sam_config.layer_norm_eps", kEpsilon, config.sam.layer_norm_eps);
}

}  // namespace

json Ocr2Config::to_json() const { return to_hf_json(*this); }

// Over 60 lines: a key a line, as the published file has them.
json to_hf_json(const Ocr2Config& config) {
  const SamConfig& sam = config.sam;
  const EncoderConfig& encoder = config.encoder;
  json text_config = lectern::to_json(config.decoder);
  text_config["model_type"] = "deepseek_ocr2_text";
  json encoder_layers = json::array();
  for (std::int64_t i = 0; i < encoder.num_hidden_layers; ++i)
    encoder_layers.push_back("full_attention");
  json out = {
      {"architectures", {"DeepseekOcr2ForConditionalGeneration"}},
      {"model_type", "deepseek_ocr2"},
      {"dtype", "float32"},
      {"image_token_id", config.image_token_id},
      {"tie_word_embeddings", false},
      {"text_config", text_config},
      {"vision_config",
       {{"model_type", "deepseek_ocr2_vision"},
        {"sam_config",
         {{"model_type", "deepseek_ocr2_sam_vision_model"},
          {"hidden_size", sam.hidden_size},
          {"output_channels", sam.output_channels},
          {"num_hidden_layers", sam.num_hidden_layers},
          {"num_attention_heads", sam.num_attention_heads},
          {"num_channels", sam.num_channels},
          {"image_size", sam.image_size},
          {"patch_size", sam.patch_size},
          {"window_size", sam.window_size},
          {"global_attn_indexes", sam.global_attn_indexes},
          {"mlp_dim", sam.mlp_dim},
          {"mlp_ratio", static_cast<double>(sam.mlp_dim) / static_cast<double>(sam.hidden_size)},
          {"hidden_act", "gelu"},
          {"layer_norm_eps", sam.layer_norm_eps},
          {"qkv_bias", true},
          {"use_abs_pos", true},
          {"use_rel_pos", true},
          {"attention_dropout", 0.0},
          {"downsample_channels", sam.downsample_channels},
          {"initializer_range", sam.initializer_range}}},
        {"encoder_config",
         {{"model_type", "deepseek_ocr2_encoder"},
          {"hidden_size", encoder.hidden_size},
          {"intermediate_size", encoder.intermediate_size},
          {"num_hidden_layers", encoder.num_hidden_layers},
          {"num_attention_heads", encoder.num_attention_heads},
          {"num_key_value_heads", encoder.num_key_value_heads},
          {"hidden_act", "silu"},
          {"layer_types", encoder_layers},
          {"max_position_embeddings", encoder.max_position_embeddings},
          {"rms_norm_eps", encoder.rms_norm_eps},
          {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", encoder.rope_theta}}},
          {"attention_dropout", 0.0},
          {"use_sliding_window", false},
          {"initializer_range", encoder.initializer_range},
          {"vocab_size", encoder.vocab_size}}}}}};
  out["lectern"] = lectern_extras(config);
  return out;
}

// Over 60 lines: a key a line, as the published file has them.
json to_original_json(const Ocr2Config& config) {
  check_original_can_hold(config);
  const SamConfig& sam = config.sam;
  const EncoderConfig& encoder = config.encoder;
  const DecoderConfig& text = config.decoder;
  const auto first_sparse =
      std::find(text.layer_is_sparse.begin(), text.layer_is_sparse.end(), true);
  const auto dense_layers = first_sparse - text.layer_is_sparse.begin();
  if (std::find(first_sparse, text.layer_is_sparse.end(), false) != text.layer_is_sparse.end())
    fail<ConfigError>(
        "export: the original layout needs all dense layers before all sparse layers "
        "(first_k_dense_replace)");
  const json sizes = {{"bos_token_id", text.bos_token_id},
                      {"eos_token_id", text.eos_token_id},
                      {"first_k_dense_replace", dense_layers},
                      {"hidden_size", text.hidden_size},
                      {"intermediate_size", text.intermediate_size},
                      {"max_position_embeddings", text.max_position_embeddings},
                      {"moe_intermediate_size", text.moe_intermediate_size},
                      {"n_group", 1},
                      {"n_routed_experts", text.n_routed_experts},
                      {"n_shared_experts", text.n_shared_experts},
                      {"norm_topk_prob", false},
                      {"num_attention_heads", text.num_attention_heads},
                      {"num_experts_per_tok", text.num_experts_per_tok},
                      {"num_hidden_layers", text.num_hidden_layers},
                      {"num_key_value_heads", text.num_key_value_heads},
                      {"rms_norm_eps", text.rms_norm_eps},
                      {"rope_theta", text.rope_theta},
                      {"routed_scaling_factor", text.routed_scaling_factor},
                      {"scoring_func", "softmax"},
                      {"topk_group", 1},
                      {"topk_method", "greedy"},
                      {"use_mla", false},
                      {"kv_lora_rank", nullptr},
                      {"q_lora_rank", nullptr},
                      {"qk_nope_head_dim", 0},
                      {"qk_rope_head_dim", 0},
                      {"v_head_dim", 0},
                      {"vocab_size", text.vocab_size}};
  json out = sizes;  // the hub file repeats the language fields at the top
  json language = sizes;
  // No architectures in here: the published file names the language model's, and vLLM builds what
  // this names as the language model, so naming the whole one makes it build itself without end.
  language["torch_dtype"] = "float32";
  out["language_config"] = language;
  out["architectures"] = {"DeepseekOCR2ForCausalLM"};
  out["model_type"] = "deepseek_vl_v2";
  out["torch_dtype"] = "float32";
  out["candidate_resolutions"] = {{1024, 1024}};
  out["global_view_pos"] = "head";
  out["tile_tag"] = "2D";
  out["image_token_id"] = config.image_token_id;
  out["lectern"] = lectern_extras(config);
  out["projector_config"] = {{"input_dim", encoder.hidden_size},
                             {"model_type", "mlp_projector"},
                             {"n_embed", text.hidden_size},
                             {"projector_type", "linear"}};
  out["vision_config"] = {
      {"image_size", sam.image_size},
      {"mlp_ratio", static_cast<double>(sam.mlp_dim) / static_cast<double>(sam.hidden_size)},
      {"model_name", "deepencoderv2"},
      {"model_type", "vision"},
      {"width",
       {{"qwen2-0-5b",
         {{"dim", encoder.hidden_size},
          {"layers", encoder.num_hidden_layers},
          {"heads", encoder.num_attention_heads},
          {"kv_heads", encoder.num_key_value_heads},
          {"intermediate_size", encoder.intermediate_size},
          {"rope_theta", encoder.rope_theta}}},
        {"sam_vit_b",
         {{"downsample_channels", sam.downsample_channels},
          {"global_attn_indexes", sam.global_attn_indexes},
          {"heads", sam.num_attention_heads},
          {"layers", sam.num_hidden_layers},
          {"width", sam.hidden_size},
          {"mlp_dim", sam.mlp_dim},
          {"output_channels", sam.output_channels},
          {"patch_size", sam.patch_size},
          {"window_size", sam.window_size},
          {"image_size", sam.image_size}}}}}};
  return out;
}

}  // namespace lectern
