// config.json in both layouts: what is read, what is refused and how, and how many weights the
// sizes make.
#include "nn/ocr2/config.h"

#include "core/io/file.h"
#include "nn/ocr2/model.h"
#include "tests/notices.h"
#include "tests/testing.h"

#include <nlohmann/json.hpp>

namespace lectern {
namespace {

using nlohmann::json;
using testing::throws_with;

json load(const std::string& name) {
  const auto path = testing::fixture("configs/" + name);
  return parse_json(read_file(path), path.string());
}
json full() { return load("full.json"); }

/// full.json with the value at a JSON pointer changed, parsed under the name "c.json".
auto with(const std::string& pointer, const json& value, json root = full()) {
  root[json::json_pointer(pointer)] = value;
  return [root] { parse_ocr2_config(root, "c.json"); };
}
auto without(const std::string& object, const std::string& field, json root = full()) {
  root[json::json_pointer(object)].erase(field);
  return [root] { parse_ocr2_config(root, "c.json"); };
}

TEST(Ocr2Config, FullSizeFile) {
  const Ocr2Config config = parse_ocr2_config(full(), "full.json");
  EXPECT_EQ(config.sam.hidden_size, 768);
  EXPECT_EQ(config.sam.mlp_dim, 3072);
  EXPECT_EQ(config.sam.grid(), 64);
  EXPECT_EQ(config.encoder.num_hidden_layers, 24);
  EXPECT_EQ(config.encoder.head_dim(), 64);
  EXPECT_EQ(config.encoder.rope_theta, 1e6);
  EXPECT_EQ(config.decoder.head_dim, 128);
  EXPECT_EQ(config.decoder.rope_theta, 1e4);
  EXPECT_EQ(config.decoder.n_routed_experts, 64);
  EXPECT_EQ(config.decoder.layer_is_sparse.size(), 12u);
  EXPECT_FALSE(config.decoder.layer_is_sparse[0]);
  EXPECT_TRUE(config.decoder.layer_is_sparse[11]);
  EXPECT_EQ(config.image_token_id, 128815);
  EXPECT_EQ(config.visual_tokens(1024), 256);
  EXPECT_EQ(config.visual_tokens(768), 144);
  EXPECT_EQ(config.query_count(1024), 256);
  EXPECT_EQ(config.query_count(768), 144);
  EXPECT_EQ(config.query_count(640), 144);
  EXPECT_EQ(config.decoder_tokens(640), 144);
}

TEST(Ocr2Config, OtherFilesOfTheRepositoryParse) {
  const Ocr2Config small = parse_ocr2_config(load("bench_small.json"), "bench_small.json");
  EXPECT_EQ(small.sam.mlp_dim, 768);
  EXPECT_EQ(small.sam.window_size, 14);
  for (const char* name : {"ocr2", "ocr2-light-decoder", "quickstart"})
    EXPECT_NO_THROW(read_ocr2_config(testing::source_folder() / "recipes/configs/models" /
                                     (std::string(name) + ".json")));
  const Ocr2Config ours =
      read_ocr2_config(testing::source_folder() / "recipes/configs/models" / "ocr2.json");
  EXPECT_EQ(ours.parameter_count(), parse_ocr2_config(full(), "full.json").parameter_count());
}

// The numbers that transformers counts for the published checkpoint (without making it).
TEST(Ocr2Config, FullSizeParameterCount) {
  const Ocr2Config config = parse_ocr2_config(full(), "full.json");
  EXPECT_EQ(config.parameter_count(), 3389119360.0);
  // Each part by taking it away.
  Ocr2Config changed = config;
  changed.decoder.vocab_size = 0;
  EXPECT_EQ(config.parameter_count() - changed.parameter_count(), 2 * 165478400.0);
  changed = config;
  changed.queries_768 = 0;
  EXPECT_EQ(config.parameter_count() - changed.parameter_count(), 129024.0);
  changed = config;
  changed.queries_1024 = 0;
  EXPECT_EQ(config.parameter_count() - changed.parameter_count(), 229376.0);
  changed = config;
  changed.encoder.num_hidden_layers = 0;
  EXPECT_EQ(config.parameter_count() - changed.parameter_count(), 357898112.0 - 896);
  changed = config;
  changed.decoder.num_hidden_layers = 0;
  changed.decoder.layer_is_sparse.clear();
  EXPECT_EQ(config.parameter_count() - changed.parameter_count(),
            2769255680.0 - 165478400.0 - 1280);
}

TEST(Ocr2Config, CountEqualsTheParametersOfAModel) {
  json root = load("bench_small.json");
  root["vision_config"]["sam_config"].update({{"hidden_size", 12},
                                              {"num_attention_heads", 3},
                                              {"image_size", 80},
                                              {"patch_size", 8},
                                              {"output_channels", 5},
                                              {"downsample_channels", {7, 24}},
                                              {"window_size", 4}});
  root["vision_config"]["encoder_config"].update(
      {{"hidden_size", 24}, {"intermediate_size", 11}, {"num_hidden_layers", 3}});
  root["text_config"].update({{"hidden_size", 20},
                              {"head_dim", 6},
                              {"vocab_size", 33},
                              {"num_key_value_heads", 2},
                              {"n_routed_experts", 4},
                              {"moe_intermediate_size", 9},
                              {"intermediate_size", 17}});
  root["lectern"] = {{"queries_768", 3}, {"queries_1024", 5}};
  const Ocr2Config config = parse_ocr2_config(root, "small.json");
  EXPECT_EQ(config.parameter_count(),
            static_cast<double>(Ocr2Model(config, 0).store().parameter_count()));
  root["lectern"]["decoder_reads"] = "visual";
  const Ocr2Config visual = parse_ocr2_config(root, "small.json");
  EXPECT_EQ(visual.parameter_count(), config.parameter_count() - (3 + 5) * 24);
  EXPECT_EQ(visual.parameter_count(),
            static_cast<double>(Ocr2Model(visual, 0).store().parameter_count()));
}

TEST(Ocr2Config, WhatTheDecoderReads) {
  json root = full();
  EXPECT_EQ(parse_ocr2_config(root, "c.json").decoder_reads, DecoderReads::queries);
  EXPECT_FALSE(to_hf_json(parse_ocr2_config(root, "c.json"))["lectern"].contains("decoder_reads"));
  root["lectern"] = {{"decoder_reads", "visual"}};
  const Ocr2Config visual = parse_ocr2_config(root, "c.json");
  EXPECT_EQ(visual.query_count(1024), 0);
  EXPECT_EQ(visual.decoder_tokens(1024), 256);
  EXPECT_EQ(visual.decoder_tokens(768), 144);
  EXPECT_EQ(visual.decoder_tokens(640), 100);
  const json written = to_hf_json(visual);
  EXPECT_EQ(written["lectern"]["decoder_reads"], "visual");
  EXPECT_EQ(parse_ocr2_config(written, "again").decoder_reads, DecoderReads::visual);
  EXPECT_TRUE(throws_with(with("/lectern", {{"decoder_reads", "both"}}),
                          {"c.json.lectern.decoder_reads: must be one of", "got \"both\""}));
}

TEST(Ocr2Config, TheLayoutsRoundTrip) {
  json root = full();
  root["lectern"] = {{"global_size", 512},         {"tile_size", 384},    {"crop", false},
                     {"prompt", "<image>\nRead."}, {"read_by", "pieces"}, {"piece_width", 90},
                     {"piece_dpi", 120.5},         {"piece_margin", 6},   {"piece_text_height", 16},
                     {"piece_at", "top"},          {"queries_768", 10}};
  // The original layout does not have this one, which no model uses: give it its default.
  root["vision_config"]["encoder_config"]["vocab_size"] = 151936;
  const Ocr2Config config = parse_ocr2_config(root, "full.json");
  EXPECT_TRUE(config.reading.by_pieces);
  EXPECT_EQ(config.reading.piece_dpi, 120.5);
  const json hf = to_hf_json(config);
  for (const char* field : {"read_by", "piece_width", "piece_dpi", "piece_margin", "piece_at"})
    EXPECT_EQ(hf["lectern"][field], root["lectern"][field]) << field;
  EXPECT_EQ(json::diff(to_hf_json(parse_ocr2_config(hf, "hf")), hf), json::array());
  EXPECT_EQ(hf["architectures"], json::array({"DeepseekOcr2ForConditionalGeneration"}));
  const json original = to_original_json(config);
  EXPECT_EQ(json::diff(to_hf_json(parse_ocr2_config(original, "original")), hf), json::array());
  EXPECT_EQ(original["model_type"], "deepseek_vl_v2");
  EXPECT_EQ(original["architectures"], json::array({"DeepseekOCR2ForCausalLM"}));
  EXPECT_EQ(original["candidate_resolutions"], json::parse("[[1024, 1024]]"));
  EXPECT_EQ(original["language_config"]["first_k_dense_replace"], 1);
  EXPECT_FALSE(original["language_config"].contains("architectures"))
      << "vLLM builds what this names as the language model: itself, without end";
  EXPECT_EQ(original["projector_config"]["n_embed"], 1280);
}

TEST(Ocr2Config, TheOriginalLayoutRefusesWhatItCannotSay) {
  Ocr2Config config = parse_ocr2_config(full(), "full.json");
  const auto refused = [](const Ocr2Config& changed,
                          std::initializer_list<std::string_view> parts) {
    return throws_with([&] { to_original_json(changed); }, parts);
  };
  Ocr2Config changed = config;
  changed.decoder.layer_is_sparse[3] = false;
  EXPECT_TRUE(refused(changed, {"all dense layers before all sparse layers"}));
  changed = config;
  changed.decoder.head_dim = 64;
  EXPECT_TRUE(refused(changed, {"head_dim", "128, got 64"}));
  changed = config;
  changed.encoder.rms_norm_eps = 1e-5;
  EXPECT_TRUE(refused(changed, {"encoder_config.rms_norm_eps 1e-06, got 1e-05"}));
  changed = config;
  changed.sam.layer_norm_eps = 1e-5;
  EXPECT_TRUE(refused(changed, {"sam_config.layer_norm_eps"}));
}

TEST(Ocr2Config, WrongValuesAreNamedWithFileAndField) {
  const std::string text = "/text_config/", sam = "/vision_config/sam_config/",
                    encoder = "/vision_config/encoder_config/";
  EXPECT_TRUE(
      throws_with(with(text + "hidden_size", "big"),
                  {"c.json.text_config.hidden_size: must be an integer from 1 to", "got \"big\""}));
  EXPECT_TRUE(throws_with(with(text + "hidden_size", -5), {"text_config.hidden_size", "got -5"}));
  EXPECT_TRUE(throws_with(with(text + "vocab_size", 1e30), {"text_config.vocab_size", "1e+30"}));
  EXPECT_TRUE(throws_with(with(text + "vocab_size", std::uint64_t{1} << 63),
                          {"text_config.vocab_size", "got 9223372036854775808"}));
  EXPECT_TRUE(throws_with(with(text + "rms_norm_eps", "x"),
                          {"text_config.rms_norm_eps: must be a number from 0 to 1, got \"x\""}));
  EXPECT_TRUE(throws_with(with(text + "bos_token_id", 129280),
                          {"bos_token_id: must be an integer from 0 to 129279, got 129280"}));
  EXPECT_TRUE(throws_with(with(text + "num_experts_per_tok", 65),
                          {"num_experts_per_tok: must be an integer from 1 to 64, got 65"}));
  EXPECT_TRUE(throws_with(with(text + "mlp_layer_types", json::array({"dense"})),
                          {"mlp_layer_types: must be 12 entries of \"dense\" or \"sparse\""}));
  EXPECT_TRUE(throws_with(with(text + "head_dim", 5), {"head_dim: must be even", "got 5"}));
  EXPECT_TRUE(throws_with(with(text + "num_attention_heads", 7),
                          {"text_config.hidden_size: must be a multiple of num_attention_heads 7, "
                           "got 1280"}));
  EXPECT_TRUE(throws_with(with(text + "num_key_value_heads", 3),
                          {"num_attention_heads: must be a multiple of num_key_value_heads 3"}));
  EXPECT_TRUE(
      throws_with(with(text + "rope_parameters", {{"rope_type", "yarn"}}),
                  {"rope_parameters.rope_type: only \"default\" is supported, got \"yarn\""}));
  EXPECT_TRUE(throws_with(with(sam + "downsample_channels", json::array({512})),
                          {"sam_config.downsample_channels: must have 2 entries, got 1"}));
  EXPECT_TRUE(
      throws_with(with(sam + "downsample_channels", json::array({512, 64})),
                  {"downsample_channels[1] must equal encoder_config.hidden_size 896, got 64"}));
  EXPECT_TRUE(
      throws_with(with(sam + "global_attn_indexes", json::array({-1})),
                  {"global_attn_indexes: must be a list of integers of 0 or more, got [-1]"}));
  EXPECT_TRUE(
      throws_with(with(sam + "image_size", 1000),
                  {"sam_config.image_size: must be a multiple of patch_size 16, got 1000"}));
  EXPECT_TRUE(throws_with(with(encoder + "num_attention_heads", 128),
                          {"encoder_config.head_dim: must be even (rotary pairs), got 7"}));
  EXPECT_TRUE(throws_with(with("/image_token_id", 129280), {"image_token_id", "got 129280"}));
  EXPECT_TRUE(
      throws_with(with("/text_config", 3), {"c.json.text_config: must be an object, got number"}));
  EXPECT_TRUE(throws_with([] { parse_ocr2_config(json::array(), "c.json"); },
                          {"c.json: must be an object, got array"}));
}

TEST(Ocr2Config, WhatIsMissingIsNamed) {
  EXPECT_TRUE(throws_with(without("", "text_config"), {"c.json.text_config: is required"}));
  EXPECT_TRUE(throws_with(without("/vision_config", "sam_config"),
                          {"c.json.vision_config.sam_config: is required"}));
  EXPECT_TRUE(throws_with(without("/vision_config/encoder_config", "hidden_size"),
                          {"encoder_config.hidden_size: is required"}));
  EXPECT_TRUE(throws_with(without("/text_config", "n_routed_experts"),
                          {"text_config.n_routed_experts: is required"}));
  EXPECT_TRUE(throws_with(without("/text_config", "mlp_layer_types"), {"is required"}));
  json small = load("bench_small.json");
  EXPECT_TRUE(throws_with(without("", "image_token_id", small), {"image_token_id: is required"}))
      << "the default is outside this vocabulary";
}

TEST(Ocr2Config, WhatTheModelCannotDoIsRefused) {
  const std::string text = "/text_config/";
  for (const auto& [field, value] :
       std::map<std::string, json>{{"attention_bias", true},
                                   {"topk_method", "group_limited_greedy"},
                                   {"n_group", 4},
                                   {"use_mla", true},
                                   {"norm_topk_prob", true},
                                   {"hidden_act", "gelu"},
                                   {"tie_word_embeddings", true}})
    EXPECT_TRUE(throws_with(with(text + field, value),
                            {"c.json.text_config." + field + ": only", "got " + value.dump()}));
  EXPECT_TRUE(throws_with(with("/vision_config/sam_config/use_rel_pos", false),
                          {"use_rel_pos: only true is supported"}));
  EXPECT_TRUE(throws_with(with("/vision_config/encoder_config/use_sliding_window", true),
                          {"use_sliding_window: only false"}));
  EXPECT_TRUE(
      throws_with(with("/lectern", {{"read_by", "lines"}}),
                  {"c.json.lectern.read_by: must be one of [\"page\",\"pieces\"], got \"lines\""}));
  EXPECT_TRUE(throws_with(with("/lectern", {{"global_size", 64}, {"piece_margin", 32}}),
                          {"piece_margin: must be an integer from 0 to 31, got 32"}));
  EXPECT_TRUE(throws_with(
      with("/lectern", {{"residual", "sum"}}),
      {"c.json.lectern.residual: must be one of [\"plain\",\"hc\",\"mhc\"], got \"sum\""}));
}

json original_of_full() { return to_original_json(parse_ocr2_config(full(), "full.json")); }

// Positions that are scaled, turned in part, or counted in a window give other numbers.
TEST(Ocr2Config, OtherRotaryPositionsAreRefused) {
  const std::string text = "/text_config/", encoder = "/vision_config/encoder_config/";
  for (const std::string& place : {text, encoder}) {
    for (const json& scaling :
         {json{{"type", "linear"}, {"factor", 4.0}}, json{{"rope_type", "yarn"}, {"factor", 2}},
          json{{"factor", 4.0}}, json{{"mrope_section", {1, 2, 3}}},
          json{{"full_attention", {{"rope_type", "yarn"}}}}, json{{"beta_fast", 32}},
          json{{"partial_rotary_factor", 0.5}}, json{{"attention_factor", 1.2}}}) {
      EXPECT_TRUE(throws_with(with(place + "rope_scaling", scaling), {"c.json.", "rope_scaling"}))
          << scaling;
      json rope = scaling;
      rope["rope_theta"] = 10000.0;
      EXPECT_TRUE(
          throws_with(with(place + "rope_parameters", rope), {"c.json.", "rope_parameters"}))
          << scaling;
    }
    EXPECT_TRUE(
        throws_with(with(place + "rope_scaling", "yarn"), {"rope_scaling: must be an object"}));
    EXPECT_TRUE(throws_with(with(place + "partial_rotary_factor", 0.5),
                            {"partial_rotary_factor: only 1.0 is supported, got 0.5"}));
    EXPECT_TRUE(throws_with(with(place + "rope_theta", 5e5), {"rope_theta: must agree with"}));
    EXPECT_NO_THROW(with(place + "rope_scaling", nullptr)());
    EXPECT_NO_THROW(with(place + "rope_scaling", {{"rope_type", "default"}, {"factor", 1}})());
    EXPECT_NO_THROW(with(place + "partial_rotary_factor", 1)());
  }
  EXPECT_TRUE(
      throws_with(with("/language_config/rope_scaling", {{"type", "yarn"}}, original_of_full()),
                  {"c.json.language_config.rope_scaling.type: only \"default\""}));
  EXPECT_TRUE(throws_with(with("/rope_scaling", {{"type", "yarn"}}, original_of_full()),
                          {"rope_scaling.type: only \"default\" is supported, got \"yarn\""}))
      << "the published program reads the top of the file";
}

TEST(Ocr2Config, TheBaseOfRotaryPositionsIsFoundWhereItStands) {
  const auto theta = [](const json& change, const char* without) {
    json root = full();
    json& text = root["text_config"];
    text.erase(without);
    text.update(change);
    return parse_ocr2_config(root, "c.json").decoder.rope_theta;
  };
  EXPECT_EQ(theta({{"rope_theta", 3e5}}, "rope_parameters"), 3e5);
  EXPECT_EQ(theta({{"rope_theta", 3e5}, {"rope_parameters", {{"rope_type", "default"}}}}, "none"),
            3e5)
      << "beside an object that does not say it";
  EXPECT_EQ(
      theta({{"rope_scaling", {{"rope_type", "default"}, {"rope_theta", 4e5}}}}, "rope_parameters"),
      4e5);
}

// What is not in any list: a name that tells is refused, another is noted.
TEST(Ocr2Config, FieldsThatLecternDoesNotKnow) {
  const std::vector<std::string> places = {"/", "/text_config/", "/vision_config/",
                                           "/vision_config/sam_config/",
                                           "/vision_config/encoder_config/"};
  for (const std::string& place : places) {
    for (const std::string field :
         {"quantization_config", "attn_logit_softcapping", "use_qk_norm", "sliding_window_pattern",
          "embedding_multiplier", "logits_scaling", "new_rope_thing", "position_embedding_type"}) {
      for (const json& value : {json(true), json(2), json("x"), json{{"a", 1}}})
        EXPECT_TRUE(throws_with(with(place + field, value),
                                {"." + field + ": is not supported, got " + value.dump()}))
            << place;
      for (const json& value : {json(false), json(0), json(""), json::array(), json()})
        EXPECT_NO_THROW(with(place + field, value)()) << place << field << value;
    }
    const testing::Notices notices;
    EXPECT_NO_THROW(with(place + "unsloth_version", "2026.1")());
    EXPECT_EQ(notices.count({"c.json", "without what lectern does not know: unsloth_version"}), 1)
        << place;
    EXPECT_EQ(notices.said.size(), 1u);
  }
  EXPECT_TRUE(throws_with(with("/lectern", {{"colour", 1}}), {"c.json.lectern.colour: is not"}));
  EXPECT_NO_THROW(with("/lectern", {{"residual", "plain"}, {"streams", 4}})());
}

TEST(Ocr2Config, WhatOthersWriteAndIsWithoutEffectIsRead) {
  const testing::Notices notices;
  for (const auto& [pointer, value] :
       std::map<std::string, json>{{"/transformers_version", "5.30.0"},
                                   {"/torch_dtype", "bfloat16"},
                                   {"/auto_map", {{"AutoModel", "x.Y"}}},
                                   {"/_name_or_path", "somewhere"},
                                   {"/attn_implementation", "sdpa"},
                                   {"/pad_token_id", 2},
                                   {"/max_length", 8192},
                                   {"/temperature", 0.0},
                                   {"/id2label", {{"0", "LABEL_0"}}},
                                   {"/text_config/use_cache", true},
                                   {"/text_config/attention_dropout", 0.0},
                                   {"/text_config/aux_loss_alpha", 0.001},
                                   {"/text_config/seq_aux", true},
                                   {"/text_config/ep_size", 1},
                                   {"/text_config/moe_layer_freq", 1},
                                   {"/text_config/num_experts", 64},
                                   {"/text_config/first_k_dense_replace", 1},
                                   {"/text_config/kv_lora_rank", nullptr},
                                   {"/text_config/output_router_logits", false},
                                   {"/text_config/layer_types", json::array()},
                                   {"/vision_config/encoder_config/sliding_window", 4096},
                                   {"/vision_config/encoder_config/max_window_layers", 28},
                                   {"/vision_config/encoder_config/attention_bias", true},
                                   {"/vision_config/sam_config/scale", 384}}) {
    json set = value;
    if (pointer.ends_with("layer_types"))
      set = json(std::vector<std::string>(12, "full_attention"));
    EXPECT_NO_THROW(with(pointer, set)()) << pointer;
  }
  for (const char* fixture : {"ocr2_A", "ocr2_A_grid64"})  // written by transformers
    EXPECT_NO_THROW(read_ocr2_config(testing::fixture(std::string(fixture) + "/config.json")));
  EXPECT_NO_THROW(read_ocr2_config(testing::source_folder() / "recipes/nano/config.json"));
  EXPECT_EQ(notices.said, std::vector<std::string>{});
  EXPECT_NO_THROW(with("/text_config/attention_dropout", 0.1)());
  EXPECT_EQ(notices.count({"text_config.attention_dropout", "without dropout", "got 0.1"}), 1);
}

TEST(Ocr2Config, FieldsThatContradictEachOtherAreRefused) {
  EXPECT_TRUE(throws_with(with("/text_config/first_k_dense_replace", 2),
                          {"first_k_dense_replace: must agree with mlp_layer_types", "got 2"}));
  EXPECT_TRUE(throws_with(with("/text_config/num_experts", 32),
                          {"num_experts: only 64 is supported, got 32"}));
  EXPECT_TRUE(throws_with(with("/image_token_index", 7), {"image_token_index: only 128815"}));
  json types = std::vector<std::string>(24, "full_attention");
  types[3] = "sliding_attention";
  EXPECT_TRUE(throws_with(with("/vision_config/encoder_config/layer_types", types),
                          {"encoder_config.layer_types: only 24 entries of \"full_attention\""}));
  const json original = original_of_full();
  EXPECT_TRUE(
      throws_with(with("/hidden_size", 640, original),
                  {"c.json.hidden_size: must agree with language_config.hidden_size 1280"}));
  EXPECT_TRUE(throws_with(with("/projector_config/n_embed", 640, original),
                          {"projector_config.n_embed: only 1280 is supported, got 640"}));
  EXPECT_TRUE(throws_with(with("/projector_config/projector_type", "mlp_gelu", original),
                          {"projector_type: only \"linear\""}));
  EXPECT_TRUE(throws_with(with("/tile_tag", "1D", original), {"tile_tag: only \"2D\""}));
  EXPECT_TRUE(throws_with(with("/vision_config/width/clip", {{"layers", 2}}, original),
                          {"vision_config.width.clip: is not supported"}));
  EXPECT_TRUE(throws_with(with("/language_config/use_mla", true, original),
                          {"c.json.use_mla: must agree with language_config.use_mla true"}));
}

// The published file gives some fields of the language model at its top only.
TEST(Ocr2Config, TheTopOfTheOriginalLayoutCounts) {
  json root = original_of_full();
  for (const char* field : {"rope_theta", "rms_norm_eps", "hidden_act"})
    root["language_config"].erase(field);
  root["rope_theta"] = 123456.0;
  root["norm_topk_prob"] = false;
  root["aux_loss_alpha"] = 0.001;
  root["_name_or_path"] = "deepseek-ai/DeepSeek-OCR-2";
  root["auto_map"] = {{"AutoConfig", "a.B"}};
  root["transformers_version"] = "4.46.3";
  root["lm_head"] = root["language_config"]["lm_head"] = true;
  root["rm_head"] = root["language_config"]["rm_head"] = false;
  root["language_config"]["architectures"] = {"DeepseekV2ForCausalLM"};
  root["language_config"]["auto_map"] = {{"AutoConfig", "c.D"}};
  const testing::Notices notices;
  EXPECT_EQ(parse_ocr2_config(root, "c.json").decoder.rope_theta, 123456.0);
  EXPECT_EQ(notices.said, std::vector<std::string>{});
}

TEST(Ocr2Config, SizesOfAnAbsurdModelAreRefusedBeforeMemoryIsTaken) {
  json root = full();
  root["text_config"]["hidden_size"] = 1280 * 1000000;
  EXPECT_TRUE(throws_with([&] { parse_ocr2_config(root, "c.json"); },
                          {"c.json: sizes must give at most 1e+13 parameters"}));
  EXPECT_TRUE(throws_with(with("/text_config/n_routed_experts", 1 << 30),
                          {"n_routed_experts: must be an integer from 1 to 16384"}));
}

TEST(Ocr2Config, OriginalLayoutErrors) {
  const json original = to_original_json(parse_ocr2_config(full(), "full.json"));
  const std::string width = "/vision_config/width/";
  EXPECT_TRUE(throws_with(with(width + "sam_vit_b/heads", 7, original),
                          {"c.json.vision_config.width.sam_vit_b.width: must be a multiple of "
                           "heads 7, got 768"}));
  EXPECT_TRUE(
      throws_with(with(width + "sam_vit_b/downsample_channels", json::array({512}), original),
                  {"downsample_channels: must have 2 entries, got 1"}));
  EXPECT_TRUE(throws_with(with(width + "qwen2-0-5b/kv_heads", 4, original),
                          {"qwen2-0-5b.heads: must be a multiple of kv_heads 4, got 14"}));
  json twice = original;
  twice["use_mla"] = true;
  EXPECT_TRUE(throws_with(with("/language_config/use_mla", true, twice),
                          {"language_config.use_mla: only false is supported"}));
  twice = original;
  twice["qk_rope_head_dim"] = 64;
  EXPECT_TRUE(throws_with(with("/language_config/qk_rope_head_dim", 64, twice),
                          {"qk_rope_head_dim: only 0 is supported, got 64"}));
  twice = original;
  twice.erase("first_k_dense_replace");
  EXPECT_TRUE(throws_with(without("/language_config", "first_k_dense_replace", twice),
                          {"language_config.first_k_dense_replace: is required"}));
  EXPECT_TRUE(throws_with(without("", "vision_config", original), {"vision_config: is required"}));
}

TEST(Ocr2Config, ADamagedFileIsNamed) {
  const testing::TemporaryFolder folder;
  const auto path = folder.path() / "config.json";
  EXPECT_TRUE(throws_with([&] { read_ocr2_config(path); }, {path.string()}));
  write_file(path, "{\"text_config\": {");
  EXPECT_TRUE(throws_with([&] { read_ocr2_config(path); }, {path.string(), "not valid JSON"}));
}

}  // namespace
}  // namespace lectern
