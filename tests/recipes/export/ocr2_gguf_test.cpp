// A model written for llama.cpp, read again by the reader of core/io/gguf.h. That llama.cpp
// computes with these files what transformers does is tests/oracle/gguf_check.py's.
#include "core/allocator.h"
#include "core/io/gguf.h"
#include "core/random.h"
#include "nn/ocr2/model.h"
#include "recipes/export/export.h"
#include "recipes/export/gguf_model.h"
#include "tests/recipes/spawn.h"
#include "tests/recipes/tiny_run.h"

#include <set>

namespace lectern {
namespace {

using testing::throws_with;

/// As small as llama.cpp's fixed views let a model be.
nlohmann::json gguf_config() {
  nlohmann::json json = testing::tiny_config(144, 256);
  json["vision_config"]["sam_config"].update({{"patch_size", 16},
                                              {"image_size", 1024},
                                              {"window_size", 14},
                                              {"num_hidden_layers", 3},
                                              {"global_attn_indexes", {2}}});
  json["lectern"].update({{"global_size", 1024}, {"tile_size", 768}, {"crop", true}});
  return json;
}

LoadedModel gguf_model(const nlohmann::json& config = gguf_config()) {
  LoadedModel out = {std::make_unique<Ocr2Model>(parse_ocr2_config(config, "config"), 5),
                     testing::tiny_tokenizer(),
                     {}};
  // Norms and biases are ones and zeros otherwise: an exchange of two would not show.
  for (const auto& [name, tensor] : out.model->store().state())
    if (tensor.ndim() < 2) Random(5, name).fill_normal(tensor, 0.5, 0.3);
  return out;
}

struct Exported {
  GgufFile language, vision;
};

Exported exported(const LoadedModel& model, const std::filesystem::path& folder,
                  GgufType type = GgufType::f32) {
  export_model(model, "gguf", folder, {.type = type});
  return {GgufFile::open(folder / "model.gguf"), GgufFile::open(folder / "mmproj.gguf")};
}

std::set<std::string> names_of(const GgufFile& file) {
  std::set<std::string> out;
  for (const GgufEntry& entry : file.entries()) out.insert(entry.name);
  return out;
}

void add_layer_names(std::set<std::string>& out, std::int64_t layer, bool sparse) {
  const std::string b = fmt::format("blk.{}.", layer);
  for (const char* name : {"attn_norm", "ffn_norm", "attn_q", "attn_k", "attn_v", "attn_output"})
    out.insert(b + name + ".weight");
  for (const std::string part : {"gate", "up", "down"})
    if (sparse)
      for (const char* kind : {"_exps", "_shexp"}) out.insert(b + "ffn_" + part + kind + ".weight");
    else
      out.insert(b + "ffn_" + part + ".weight");
  if (sparse) out.insert(b + "ffn_gate_inp.weight");
}

/// Names of the contract, written down apart from the tables that make them.
std::set<std::string> language_names(const Ocr2Config& config) {
  std::set<std::string> out = {"token_embd.weight", "output.weight", "output_norm.weight"};
  for (std::int64_t i = 0; i < config.decoder.num_hidden_layers; ++i)
    add_layer_names(out, i, config.decoder.layer_is_sparse[static_cast<std::size_t>(i)]);
  return out;
}

std::set<std::string> vision_names(const Ocr2Config& config) {
  std::set<std::string> out = {
      "v.sam.pos_embd.weight", "v.sam.neck.0.weight",         "v.sam.neck.2.weight",
      "v.sam.net_2.weight",    "v.sam.net_3.weight",          "v.view_seperator",
      "v.post_ln.weight",      "v.resample_query_768.weight", "v.resample_query_1024.weight"};
  const auto both = [&](const std::string& name) {
    out.insert(name + ".weight");
    out.insert(name + ".bias");
  };
  for (const char* name : {"v.sam.patch_embd", "v.sam.neck.1", "v.sam.neck.3", "mm.model.fc"})
    both(name);
  for (std::int64_t i = 0; i < config.sam.num_hidden_layers; ++i) {
    const std::string b = fmt::format("v.sam.blk.{}.", i);
    for (const char* name : {"pre_ln", "post_ln", "attn.qkv", "attn.out", "mlp.lin1", "mlp.lin2"})
      both(b + name);
    for (const char* name : {"attn.pos_h.weight", "attn.pos_w.weight"}) out.insert(b + name);
  }
  for (std::int64_t i = 0; i < config.encoder.num_hidden_layers; ++i) {
    const std::string b = fmt::format("v.blk.{}.", i);
    for (const char* name : {"attn_q", "attn_k", "attn_v"}) both(b + name);
    for (const char* name : {"attn_out", "ffn_gate", "ffn_up", "ffn_down", "ln1", "ln2"})
      out.insert(b + name + ".weight");
  }
  return out;
}

TEST(GgufExport, EveryTensorHasItsNameAndEveryNameItsTensor) {
  const testing::TemporaryFolder folder;
  Random random(3, "sizes");
  for (int round = 0; round < 4; ++round) {
    nlohmann::json json = gguf_config();
    const auto layers = static_cast<std::int64_t>(2 + random.below(3));
    const auto dense = static_cast<std::int64_t>(random.below(2));
    auto& text = json["text_config"];
    text["num_hidden_layers"] = layers;
    text["mlp_layer_types"] = nlohmann::json::array();
    for (std::int64_t i = 0; i < layers; ++i)
      text["mlp_layer_types"].push_back(i < dense ? "dense" : "sparse");
    text["n_routed_experts"] = 2 + random.below(11);
    text["n_shared_experts"] = 1 + random.below(2);
    auto& sam = json["vision_config"]["sam_config"];
    sam["num_hidden_layers"] = 1 + random.below(4);
    sam["global_attn_indexes"] =
        sam["num_hidden_layers"] > 2 ? std::vector<int>{2} : std::vector<int>{};
    json["vision_config"]["encoder_config"]["num_hidden_layers"] = 1 + random.below(3);
    const LoadedModel model = gguf_model(json);
    const auto& config = dynamic_cast<const Ocr2Config&>(model.model->config());
    const Exported files = exported(model, folder.path() / std::to_string(round));
    EXPECT_EQ(names_of(files.language), language_names(config));
    EXPECT_EQ(names_of(files.vision), vision_names(config));
    std::int64_t values = 0;
    for (const GgufFile* file : {&files.language, &files.vision})
      for (const GgufEntry& entry : file->entries()) values += entry.shape.numel();
    EXPECT_EQ(values, model.model->store().parameter_count());
  }
}

TEST(GgufExport, ValuesAreThoseOfTheModelAndExpertsAreStacked) {
  const testing::TemporaryFolder folder;
  const LoadedModel model = gguf_model();
  const Exported files = exported(model, folder.path() / "out");
  std::map<std::string, Tensor> state;
  for (const auto& [name, value] : model.model->store().state()) state[name] = value.contiguous();
  const auto expect_equal = [&](const GgufFile& file, const std::string& name, std::int64_t begin,
                                const std::string& published) {
    const Tensor& want = state.at(published);
    std::vector<float> got(static_cast<std::size_t>(want.numel()));
    file.read(name, begin, got);
    EXPECT_EQ(std::memcmp(got.data(), want.raw(), want.bytes()), 0) << name << " " << published;
  };
  expect_equal(files.language, "output.weight", 0, "lm_head.weight");
  expect_equal(files.language, "blk.1.attn_k.weight", 0, "model.layers.1.self_attn.k_proj.weight");
  for (std::int64_t e = 0; e < 4; ++e)
    for (const char* part : {"gate", "up", "down"})
      expect_equal(files.language, fmt::format("blk.1.ffn_{}_exps.weight", part), e * 16 * 32,
                   fmt::format("model.layers.1.mlp.experts.{}.{}_proj.weight", e, part));
  EXPECT_EQ(files.language.entry("blk.1.ffn_down_exps.weight").shape, (Shape{4, 32, 16}));
  EXPECT_EQ(files.language.entry("blk.0.ffn_down.weight").shape, (Shape{32, 48}));
  EXPECT_EQ(files.vision.entry("v.sam.pos_embd.weight").shape, (Shape{1, 64, 64, 16}));
  expect_equal(files.vision, "v.sam.blk.1.post_ln.bias", 0, "model.sam_model.blocks.1.norm2.bias");
  expect_equal(files.vision, "v.blk.1.ln2.weight", 0,
               "model.qwen2_model.model.model.layers.1.post_attention_layernorm.weight");
  expect_equal(files.vision, "v.view_seperator", 0, "model.view_seperator");
}

TEST(GgufExport, OnlyMatricesAreRoundedAndOnlyWhereBlocksFit) {
  const testing::TemporaryFolder folder;
  const LoadedModel model = gguf_model();
  for (const GgufType type : {GgufType::f16, GgufType::bf16, GgufType::q8_0, GgufType::q4_0}) {
    const Exported files = exported(model, folder.path() / name_of(type), type);
    const GgufType vision = type == GgufType::q4_0 ? GgufType::q8_0 : type;
    const auto type_of = [&](const char* name) {
      return files.vision.contains(name) ? files.vision.entry(name).type
                                         : files.language.entry(name).type;
    };
    EXPECT_EQ(type_of("blk.0.attn_q.weight"), type);
    EXPECT_EQ(type_of("blk.1.ffn_gate_exps.weight"), type);
    EXPECT_EQ(type_of("v.sam.blk.0.mlp.lin2.weight"), vision);  // rows of 32
    // Rows of 16 and 24.
    const bool is_block = block_values(type) > 1;
    EXPECT_EQ(type_of("blk.1.ffn_down_exps.weight"), is_block ? GgufType::f16 : type);
    EXPECT_EQ(type_of("v.blk.0.attn_q.weight"), is_block ? GgufType::f16 : type);
    for (const char* name :
         {"output_norm.weight", "blk.1.ffn_gate_inp.weight", "v.sam.pos_embd.weight",
          "v.sam.blk.0.attn.pos_h.weight", "v.sam.patch_embd.weight", "v.sam.neck.2.weight",
          "v.sam.net_3.weight", "v.resample_query_768.weight", "v.blk.0.attn_q.bias",
          "v.view_seperator"})
      EXPECT_EQ(type_of(name), GgufType::f32) << name;
    EXPECT_EQ(*files.language.find("general.file_type"), GgufValue(gguf_file_type(type)));
  }
  export_model(model, "gguf", folder.path() / "mixed",
               {.type = GgufType::q8_0, .vision_type = GgufType::f16});
  const GgufFile vision = GgufFile::open(folder.path() / "mixed" / "mmproj.gguf");
  EXPECT_EQ(vision.entry("v.sam.blk.0.mlp.lin2.weight").type, GgufType::f16);
}

TEST(GgufExport, TheTokenizerKeepsItsIdsTypesAndMerges) {
  const testing::TemporaryFolder folder;
  LoadedModel model = gguf_model();
  nlohmann::json document = nlohmann::json::parse(model.tokenizer.json());
  const std::int64_t next = model.tokenizer.id_limit();
  nlohmann::json added = document["added_tokens"][0];
  added.update({{"id", next + 2}, {"content", "<td>"}, {"special", false}});
  document["added_tokens"].push_back(added);
  model.tokenizer = Tokenizer::from_json(document.dump(), "changed");
  const GgufFile file = exported(model, folder.path() / "out").language;
  const auto get = [&]<typename T>(const char* key, T) {
    return std::get<T>(*file.find(std::string("tokenizer.ggml.") + key));
  };
  const auto tokens = get("tokens", std::vector<std::string>());
  const auto types = get("token_type", std::vector<std::int32_t>());
  const auto merges = get("merges", std::vector<std::string>());
  ASSERT_EQ(tokens.size(), 288U);
  ASSERT_EQ(types.size(), 288U);
  EXPECT_EQ(std::set(tokens.begin(), tokens.end()).size(), 288U);
  for (std::int64_t id = 0; id < 288; ++id) {
    const auto text = model.tokenizer.id_to_token(static_cast<std::int32_t>(id));
    const auto at = static_cast<std::size_t>(id);
    EXPECT_EQ(tokens[at], text.value_or(fmt::format("[PAD{}]", id)));
    const bool special = model.tokenizer.is_special(static_cast<std::int32_t>(id));
    EXPECT_EQ(types[at], !text ? 5 : special ? 3 : id == next + 2 ? 4 : 1) << tokens[at];
  }
  ASSERT_EQ(merges.size(), document["model"]["merges"].size());
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const auto& merge = document["model"]["merges"][i];
    EXPECT_EQ(merges[i], merge.is_string()
                             ? merge.get<std::string>()
                             : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  EXPECT_EQ(get("pre", std::string()), "deepseek-v3");
  EXPECT_EQ(get("model", std::string()), "gpt2");
  EXPECT_EQ(get("bos_token_id", std::uint32_t()), 0U);
  EXPECT_TRUE(get("add_bos_token", bool()));
  EXPECT_FALSE(get("add_eos_token", bool()));
}

TEST(GgufExport, TokenizersOfTheOtherTwoStylesAreNamed) {
  for (const auto& [style, name] : {std::pair{"gpt2", "gpt-2"}, std::pair{"qwen2", "qwen2"}}) {
    LoadedModel model = gguf_model();
    model.tokenizer = Tokenizer::load(testing::fixture("tokenizer") / style / "tokenizer.json");
    GgufLimits limits;
    check_gguf_tokenizer(model.tokenizer, limits);
    EXPECT_NO_THROW(limits.check());
    const GgufMetadata keys = gguf_tokenizer_metadata(model);
    EXPECT_EQ(keys.at(1),
              (std::pair{std::string("tokenizer.ggml.pre"), GgufValue(std::string(name))}));
  }
}

TEST(GgufExport, WhatLlamaCppCannotExpressIsRefusedTogether) {
  const testing::TemporaryFolder folder;
  nlohmann::json config = testing::tiny_config(4, 9);
  config["lectern"]["residual"] = "mhc";
  config["text_config"]["rope_theta"] = 5000.0;
  config["text_config"]["num_key_value_heads"] = 1;
  config["text_config"]["head_dim"] = 8;
  config["text_config"]["mlp_layer_types"] = {"sparse", "dense"};
  config["vision_config"]["sam_config"]["layer_norm_eps"] = 1e-5;
  config["vision_config"]["encoder_config"]["rope_theta"] = 10000.0;
  EXPECT_TRUE(throws_with(
      [&] { export_model(gguf_model(config), "gguf", folder.path() / "out"); },
      {"llama.cpp has no such model", "lectern.residual must be \"plain\", got \"mhc\"",
       "text_config.num_key_value_heads must be num_attention_heads = 2, got 1",
       "text_config.head_dim must be hidden_size / num_attention_heads = 32 / 2, got 8",
       "text_config.rope_parameters.rope_theta must be 10000, got 5000",
       "text_config.mlp_layer_types must be all \"dense\" before all \"sparse\"",
       "sam_config.patch_size must be 16, got 4", "sam_config.image_size must be 1024, got 32",
       "sam_config.window_size must be 14, got 3",
       "sam_config.global_attn_indexes must be [], got [1]",
       "sam_config.layer_norm_eps must be 1e-06, got 1e-05",
       "encoder_config.rope_parameters.rope_theta must be 1000000, got 10000",
       "lectern.queries_768 must be 144, got 4", "lectern.queries_1024 must be 256, got 9",
       "lectern.global_size must be 1024, got 32", "lectern.crop must be true"}));
  config = gguf_config();
  config["text_config"]["mlp_layer_types"] = {"dense", "dense"};
  config["lectern"].update({{"tile_size", 640}, {"decoder_reads", "visual"}});
  EXPECT_TRUE(
      throws_with([&] { export_model(gguf_model(config), "gguf", folder.path() / "out"); },
                  {"\"sparse\" in one layer at least", "lectern.tile_size must be 768, got 640",
                   "decoder_reads must be \"queries\""}));
  EXPECT_TRUE(throws_with(
      [&] { export_model(load_model_folder(shipped_model()), "gguf", folder.path() / "out"); },
      {"patch_size must be 16, got 8", "lectern.read_by must be \"page\", got \"pieces\""}));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(GgufExport, TokenizersThatCutInAnotherWayAreRefused) {
  const auto refused = [](const std::function<void(nlohmann::json&)>& change,
                          std::initializer_list<std::string_view> parts) {
    nlohmann::json document = nlohmann::json::parse(testing::tiny_tokenizer().json());
    change(document);
    GgufLimits limits;
    check_gguf_tokenizer(Tokenizer::from_json(document.dump(), "changed"), limits);
    return throws_with([&] { limits.check(); }, parts);
  };
  EXPECT_TRUE(refused(
      [](nlohmann::json& t) {
        t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\p{N}{1,2}";
      },
      {"pre_tokenizer must be DeepSeek's, Qwen 2's or GPT-2's", "{1,2}"}));
  EXPECT_TRUE(refused(
      [](nlohmann::json& t) {
        t["normalizer"] = {{"type", "NFKC"}};
      },
      {"normalizer must be null or NFC", "NFKC"}));
  EXPECT_TRUE(refused([](nlohmann::json& t) { t["model"]["ignore_merges"] = true; },
                      {"ignore_merges must be false"}));
  EXPECT_TRUE(refused([](nlohmann::json& t) { t["added_tokens"][3]["lstrip"] = true; },
                      {"lstrip of the added token \"<image>\" must be false"}));
}

TEST(GgufExport, AnotherValueInTheFileIsNoticed) {
  const testing::TemporaryFolder folder;
  const LoadedModel model = gguf_model();
  const auto rules = gguf_decoder_rules();
  std::vector<GgufRule> all(rules.begin(), rules.end());
  const auto vision = gguf_vision_rules();
  // The encoder is named by its published names here: what a name is does not matter.
  all.insert(all.end(), vision.begin(), vision.end());
  all.push_back({"model.qwen2_model.query_768", "q7"});
  all.push_back({"model.qwen2_model.query_1024", "q10"});
  all.push_back({"model.qwen2_model.model.model.norm", "n"});
  for (const char* part :
       {"input_layernorm", "post_attention_layernorm", "self_attn.q_proj", "self_attn.k_proj",
        "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
    static std::set<std::string> kept;
    const auto keep = [](std::string text) -> std::string_view { return *kept.insert(text).first; };
    all.push_back({keep(std::string("model.qwen2_model.model.model.layers.*.") + part),
                   keep(std::string("l.*.") + part), GgufRole::matrix});
  }
  for (const GgufType type : {GgufType::f32, GgufType::bf16, GgufType::q8_0}) {
    const std::vector<GgufContent> contents = {{"a.gguf", {{"k", true}}, all, type}};
    write_gguf(model, folder.path(), contents);
    EXPECT_NO_THROW(verify_gguf(model, folder.path(), contents));
    const std::string bytes = read_file(folder.path() / "a.gguf");
    const GgufFile file = GgufFile::open(folder.path() / "a.gguf");
    std::size_t at = bytes.size();  // of the first tensor's data, then of each
    for (const GgufEntry& entry : file.entries()) at -= (entry.bytes() + 31) / 32 * 32;
    for (const GgufEntry& entry : file.entries()) {
      std::string changed = bytes;
      changed[at + entry.bytes() - 1] = static_cast<char>(changed[at + entry.bytes() - 1] ^ 0x40);
      write_file(folder.path() / "a.gguf", changed);
      ASSERT_TRUE(throws_with([&] { verify_gguf(model, folder.path(), contents); },
                              {"a.gguf", "tensor " + entry.name + " differs"}))
          << entry.name;
      at += (entry.bytes() + 31) / 32 * 32;
    }
    write_file(folder.path() / "a.gguf", bytes);
    auto other = contents;
    other[0].metadata[0].second = false;
    EXPECT_TRUE(throws_with([&] { verify_gguf(model, folder.path(), other); }, {"keys differ"}));
  }
  all.pop_back();
  EXPECT_TRUE(throws_with(
      [&] {
        write_gguf(model, folder.path(), {{"b.gguf", {}, all, GgufType::f32}});
      },
      {"GGUF has no name for tensor", "mlp.down_proj"}));
}

TEST(GgufExport, NamesOfAdaptersFollowFromTheSameTable) {
  const auto target = [](std::string_view name) { return gguf_target(gguf_decoder_rules(), name); };
  EXPECT_EQ(target("model.layers.11.self_attn.o_proj.weight")->name, "blk.11.attn_output.weight");
  EXPECT_EQ(target("model.layers.11.self_attn.o_proj.weight")->stack, -1);
  const auto expert = target("model.layers.3.mlp.experts.63.up_proj.weight");
  EXPECT_EQ(expert->name, "blk.3.ffn_up_exps.weight");
  EXPECT_EQ(expert->stack, 63);
  for (const char* name : {"model.layers.3.mlp.experts.up_proj.weight", "model.layers.x.mlp.gate",
                           "lm_head.weight.more", "model.projector.layers.weight", ""})
    EXPECT_FALSE(target(name)) << name;
}

TEST(GgufExport, OptionsOfOtherFormatsAreRefused) {
  const testing::TemporaryFolder folder;
  const LoadedModel model = gguf_model();
  const auto out = folder.path() / "out";
  EXPECT_TRUE(throws_with([&] { export_model(model, "gguf", out, {.dtype = DType::bf16}); },
                          {"--type, not --dtype"}));
  for (const char* format : {"hf", "original", "encoder", "lectern"}) {
    EXPECT_TRUE(throws_with([&] { export_model(model, format, out, {.type = GgufType::f16}); },
                            {"--type and --vision-type are for --format gguf"}));
    EXPECT_TRUE(
        throws_with([&] { export_model(model, format, out, {.vision_type = GgufType::f16}); },
                    {"--type and --vision-type are for --format gguf"}));
  }
}

TEST(GgufExport, NothingIsLeftWhenTheDiskIsFull) {
  const testing::TemporaryFolder folder;
  const LoadedModel model = gguf_model();
  export_model(model, "lectern", folder.path() / "m");
  for (const std::string format : {"gguf", "encoder", "hf"}) {
    // A limit on the size of files, in blocks of 1024 bytes, stands for a full disk.
    testing::Child child({"export", "--checkpoint", folder.path() / "m", "--format", format,
                          "--out", folder.path() / "out"},
                         "", {"bash", "-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""});
    EXPECT_EQ(child.wait(), 1) << format;
    EXPECT_NE(child.errors().find("cannot write: File too large"), std::string::npos)
        << child.errors();
    std::set<std::string> left;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
      left.insert(entry.path().filename().string());
    EXPECT_EQ(left, std::set<std::string>{"m"}) << format;
  }
}

TEST(ExportSource, NoTensorIsInMemoryWhole) {
  const testing::TemporaryFolder folder;
  nlohmann::json config = gguf_config();
  config["text_config"].update({{"intermediate_size", 20000}, {"hidden_size", 32}});
  export_model(gguf_model(config), "lectern", folder.path() / "bf16", {.dtype = DType::bf16});
  std::size_t largest = 0;
  const ExportSource source = ExportSource::open(folder.path() / "bf16");
  for (const auto& [name, shape] : source.tensors())
    largest = std::max(largest, static_cast<std::size_t>(shape.numel()) * sizeof(float));
  // Pieces of a tensor; the largest is not in memory whole even where its dtype changes.
  const std::size_t allowed = std::size_t{1} << 20;
  ASSERT_GT(largest, 2 * allowed) << "or this test says nothing";
  for (const char* format : {"hf", "original", "gguf", "encoder", "lectern"}) {
    reset_peak_memory();
    const std::size_t before = memory_statistics().current_bytes;
    export_model(source, format, folder.path() / format);
    EXPECT_LE(memory_statistics().peak_bytes - before, allowed) << format;
  }
}

TEST(ExportSource, GivesWhatALoadedModelHas) {
  const testing::TemporaryFolder folder;
  export_model(gguf_model(), "hf", folder.path() / "a");
  const LoadedModel loaded = load_model_folder(folder.path() / "a");
  const ExportSource one = ExportSource::open(folder.path() / "a"), two = loaded;
  ASSERT_EQ(one.tensors(), two.tensors());
  for (const auto& [name, shape] : one.tensors()) {
    EXPECT_TRUE(testing::same_bits(one.read(name), two.read(name))) << name;
    one.release(name);
    EXPECT_TRUE(testing::same_bits(one.read_f32(name), two.read(name))) << name;
  }
  EXPECT_TRUE(throws_with([&] { one.read("model.nothing"); }, {"no tensor model.nothing"}));
}

}  // namespace
}  // namespace lectern
