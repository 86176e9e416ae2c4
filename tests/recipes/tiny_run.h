// A training run small enough for tests: tokenizer, model configuration, shards and recipe, with
// views of 32 pixels and a model of some twenty thousand weights.
#pragma once

#include "core/io/file.h"
#include "core/io/safetensors.h"
#include "data/tokenizer/train.h"
#include "recipes/checkpoint/folder.h"
#include "recipes/recipe/recipe.h"
#include "tests/data/synthetic_pages.h"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace lectern::testing {

/// Special tokens, bytes and a few merges; <image> is 3.
inline const Tokenizer& tiny_tokenizer() {
  static const Tokenizer tokenizer = [] {
    const std::vector<std::string> texts = {"p1w0 p2w1 p1w2 p2w3 p3w0 p3w1"};
    TrainOptions options;
    options.vocab_size = 272;
    return train_tokenizer(texts, options);
  }();
  return tokenizer;
}

/// config.json of a model with 8 x 8 patches of 4 pixels in a view of 32; such a view gives 4
/// tokens and takes the first query table.
inline nlohmann::json tiny_config(std::int64_t queries_768 = 4, std::int64_t queries_1024 = 9) {
  nlohmann::json json = nlohmann::json::parse(R"({
    "image_token_id": 3,
    "vision_config": {
      "sam_config": {"hidden_size": 16, "output_channels": 8, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 32, "patch_size": 4, "window_size": 3,
        "global_attn_indexes": [1], "mlp_dim": 32, "downsample_channels": [12, 24],
        "initializer_range": 0.1},
      "encoder_config": {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 1024,
        "rope_theta": 1000000.0, "initializer_range": 0.1, "vocab_size": 16}},
    "text_config": {"vocab_size": 288, "hidden_size": 32, "intermediate_size": 48,
      "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
      "mlp_layer_types": ["dense", "sparse"], "n_routed_experts": 4, "n_shared_experts": 1,
      "num_experts_per_tok": 2, "moe_intermediate_size": 16, "max_position_embeddings": 1024,
      "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "initializer_range": 0.1}})");
  json["lectern"] = {{"queries_768", queries_768},
                     {"queries_1024", queries_1024},
                     {"global_size", 32},
                     {"tile_size", 32},
                     {"crop", false},
                     {"prompt", "<image>"}};
  return json;
}

/// Tokenizer, configuration and shards in a folder that goes with the object.
class TinyData {
 public:
  /// Pages of one line of two words each.
  explicit TinyData(int pages = 4) {
    tiny_tokenizer().save(tokenizer());
    write_file(config(), tiny_config().dump());
    std::filesystem::create_directories(shards());
    ShardWriter writer;
    for (int page = 1; page <= pages; ++page)
      writer.add(shard_page(synthetic_page("doc", page, 1, 2), tiny_tokenizer()));
    writer.write(shards() / "shard-00000.h5", sha256_of_file(tokenizer()));
  }

  const std::filesystem::path& folder() const { return folder_.path(); }
  std::filesystem::path tokenizer() const { return folder() / "tokenizer.json"; }
  std::filesystem::path config() const { return folder() / "config.json"; }
  std::filesystem::path shards() const { return folder() / "shards"; }

  /// Text of a recipe: `run` names the run folder, later lines of `overrides` win.
  std::filesystem::path recipe_file(const std::string& run) const {
    const auto path = folder() / (run + ".toml");
    write_file(path, fmt::format(R"(stage = 1
steps = 4
run_dir = "{0}/{1}"
seed = 3
threads = 1
[model]
config = "{0}/config.json"
[data]
shards = ["{0}/shards"]
tokenizer = "{0}/tokenizer.json"
level = "word"
prompt = "<image>"
max_text_tokens = 24
workers = 1
[view]
global_size = 32
tile_size = 32
crop = false
[optimizer]
learning_rate = 3e-3
warmup_steps = 1
[batch]
global_size = 4
micro_batch = 2
[checkpoint]
every = 2
[evaluation]
samples = 0
[log]
wall_clock = false
tensorboard = false
progress_seconds = 1e6
)",
                                 folder().string(), run));
    return path;
  }
  Recipe recipe(const std::string& run, const std::vector<std::string>& overrides = {}) const {
    return load_recipe(recipe_file(run), overrides);
  }

 private:
  TemporaryFolder folder_;
};

inline std::filesystem::path checkpoint(const TinyData& data, const std::string& run,
                                        std::int64_t step) {
  return data.folder() / run / "checkpoints" / checkpoint_name(step);
}

inline std::string metrics_text(const TinyData& data, const std::string& run) {
  return read_file(data.folder() / run / "metrics.jsonl");
}

/// What --set takes: a key and a path.
inline std::string set(const std::string& key, const std::filesystem::path& path) {
  return fmt::format("{}=\"{}\"", key, path.string());
}

/// Every tensor of a checkpoint folder, copied.
inline std::map<std::string, Tensor> tensors_of(const std::filesystem::path& folder,
                                                const std::string& stem = "model") {
  const SafetensorsFolder file = SafetensorsFolder::open(folder, stem);
  std::map<std::string, Tensor> out;
  for (const std::string& name : file.names()) out[name] = file.get(name).clone();
  return out;
}

inline bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

/// "" when both folders hold the same tensors bit for bit, else what differs first.
inline std::string first_difference(const std::map<std::string, Tensor>& a,
                                    const std::map<std::string, Tensor>& b) {
  if (a.size() != b.size()) return fmt::format("{} and {} tensors", a.size(), b.size());
  for (const auto& [name, tensor] : a)
    if (!b.contains(name) || !same_bits(tensor, b.at(name))) return name;
  return "";
}

}  // namespace lectern::testing
