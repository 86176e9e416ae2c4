#include "recipes/recipe/recipe.h"

#include "core/error.h"
#include "distributed/mesh.h"
#include "recipes/config/fields.h"
#include "recipes/config/find.h"
#include "recipes/recipe/sources.h"

#include <algorithm>
#include <numeric>

namespace lectern {
namespace {

/// The keys that go with hc and mhc, which others have not.
void read_streams(ConfigReader& table, std::optional<ResidualConfig>& out) {
  if (out && !out->is_plain()) {
    out = read_record(table, *out);
    return;
  }
  ResidualConfig usual;
  FieldKeys fields;
  describe(usual, fields);
  for (const std::string& key : fields.keys())
    if (table.has(key)) table.refuse(key, "needs residual = \"hc\" or \"mhc\"");
}

ModelRecipe read_model(ConfigReader table) {
  ModelRecipe out = read_record(table, ModelRecipe{});
  if (out.queries > 0 && out.decoder_reads == "visual")
    table.refuse("queries", "must be left out with decoder_reads = \"visual\", which has none");
  read_streams(table, out.residual);
  if (out.config.empty()) table.refuse("config", "must name a config.json, got \"\"");
  if (out.init.empty()) table.refuse("init", "must be \"random\" or a folder, got \"\"");
  out.config = find_shipped(out.config).string();
  out.init = find_shipped(out.init).string();
  return out;
}

/// Weights of `count` things: none, or one each and not all zero.
void check_weights(const ConfigReader& table, std::string_view key,
                   const std::vector<double>& weights, std::size_t count, std::string_view of) {
  if (weights.empty()) return;
  if (weights.size() != count)
    table.refuse(key, fmt::format("must have one number for each of the {} {}, got {}", count, of,
                                  weights.size()));
  if (std::accumulate(weights.begin(), weights.end(), 0.0) <= 0)
    table.refuse(key, "must not all be 0");
}

DataRecipe read_data(ConfigReader table) {
  const bool has_sources = table.has("sources");
  DataRecipe out = read_record(table, DataRecipe{}, has_sources);
  if (has_sources && !out.shards.empty())
    table.refuse("shards", "must be left out with [[data.sources]], got both");
  if (!has_sources && out.shards.empty())
    table.refuse("shards", "must name at least one folder, got none");
  check_weights(table, "shard_weights", out.shard_weights, out.shards.size(), "shards");
  if (out.level == "mixed" && out.page_share + out.line_share + out.word_share <= 0)
    table.refuse("level",
                 "= \"mixed\" needs page_share, line_share or word_share above 0, got none");
  const auto image = out.prompt.find("<image>");
  if (image == std::string::npos || out.prompt.find("<image>", image + 1) != std::string::npos)
    table.refuse("prompt", "must have <image> exactly once");
  if (out.pack_tokens > 0 && out.pack_tokens <= out.max_text_tokens)
    table.refuse("pack_tokens", fmt::format("must be 0 or above data.max_text_tokens = {}, got {}",
                                            out.max_text_tokens, out.pack_tokens));
  out.sources = read_sources(table, "sources", out);
  if (has_sources && out.sources.empty())
    table.refuse("sources", "must have at least one source, got none");
  out.validation_sources = read_sources(table, "validation_sources", out);
  if (!out.validation_sources.empty() && !out.validation.empty())
    table.refuse("validation", "must be left out with [[data.validation_sources]], got both");
  return out;
}

ViewRecipe read_view(ConfigReader table) {
  ViewRecipe out = read_record(table, ViewRecipe{});
  if (out.crop && !out.resolutions.empty())
    table.refuse("resolutions", "must be empty with view.crop = true");
  return out;
}

OptimizerRecipe read_optimizer(ConfigReader table, std::int64_t steps) {
  OptimizerRecipe out = read_record(table, OptimizerRecipe{});
  if (out.min_learning_rate > out.learning_rate)
    table.refuse("min_learning_rate", fmt::format("must be at most learning_rate = {}, got {}",
                                                  out.learning_rate, out.min_learning_rate));
  if (out.warmup_steps > steps)
    table.refuse("warmup_steps",
                 fmt::format("must be at most steps = {}, got {}", steps, out.warmup_steps));
  if (std::adjacent_find(out.step_milestones.begin(), out.step_milestones.end(),
                         std::greater_equal<>()) != out.step_milestones.end())
    table.refuse("step_milestones", "must rise from one to the next");
  if (out.step_factors.size() != out.step_milestones.size())
    table.refuse("step_factors",
                 fmt::format("must have one number for each of the {} step_milestones, got {}",
                             out.step_milestones.size(), out.step_factors.size()));
  if (out.schedule == "step" && out.step_milestones.empty())
    table.refuse("schedule", "= \"step\" needs step_milestones and step_factors, got none");
  return out;
}

BatchRecipe read_batch(ConfigReader table, bool packed) {
  BatchRecipe out = read_record(table, BatchRecipe{});
  if (!packed && out.global_size % out.micro_batch != 0)
    table.refuse("micro_batch", fmt::format("must divide batch.global_size = {}, got {}",
                                            out.global_size, out.micro_batch));
  return out;
}

/// Whether all that has pairs is known to come after the encoder.
bool adapts_decoder_alone(const LoraRecipe& lora) {
  return std::all_of(lora.targets.begin(), lora.targets.end(), [](const std::string& target) {
    return target.starts_with("decoder") || target == "experts" || target == "router" ||
           target == "head" || target.starts_with("model.layers.") || target.starts_with("lm_head");
  });
}

EncoderCacheRecipe read_cache(ConfigReader table, const Recipe& recipe) {
  const bool frozen = recipe.adapts() ? !recipe.lora || adapts_decoder_alone(*recipe.lora)
                                      : std::find(recipe.freeze.begin(), recipe.freeze.end(),
                                                  "encoder") != recipe.freeze.end();
  EncoderCacheRecipe out =
      read_record(table, EncoderCacheRecipe{.enabled = recipe.stage == 3 && frozen});
  // Prefixes of names may freeze the encoder, too: EncoderFeatures looks, which has the model.
  if (out.enabled && recipe.freeze.empty())
    table.refuse("enabled",
                 "= true needs \"encoder\" in `freeze`: the output of an encoder that trains "
                 "cannot be kept");
  return out;
}

/// [lora], which says what trains in place of `freeze`.
std::optional<LoraRecipe> read_lora(ConfigReader& root, const ModelRecipe& model) {
  std::optional<LoraRecipe> out;
  if (root.has("lora")) {
    ConfigReader table = root.table("lora");
    out = read_record(table, LoraRecipe{});
    if (out->targets.empty()) table.refuse("targets", "must name at least one part, got none");
  }
  if (!out && model.adapter.empty()) return out;
  const std::string here = model.adapter.empty() ? "[lora]" : "model.adapter";
  if (model.init == "random")
    root.refuse("model.init",
                fmt::format("must name the model that {} adapts, got \"random\"", here));
  for (const auto& [key, value] : {std::pair{"init_encoder", &model.init_encoder},
                                   {"init_decoder", &model.init_decoder},
                                   {"init_sam", &model.init_sam},
                                   {"init_qwen2", &model.init_qwen2}})
    if (!value->empty())
      root.refuse(fmt::format("model.{}", key),
                  fmt::format("must be left out with {}: an adapter belongs to the one model that "
                              "model.init names",
                              here));
  return out;
}

/// A table that needs no more than its description.
template <typename Record>
Record read_table(ConfigReader& root, std::string_view key, const Record& defaults = {}) {
  ConfigReader table = root.table(key);
  return read_record(table, defaults);
}

void read_small_tables(ConfigReader& root, Recipe& out) {
  out.moe = read_table<MoeRecipe>(root, "moe");
  out.checkpoint = read_table<CheckpointRecipe>(root, "checkpoint");
  out.evaluation = read_table<EvaluationRecipe>(root, "evaluation",
                                                {.max_new_tokens = out.data.max_text_tokens});
  out.encoder_cache = read_cache(root.table("encoder_cache"), out);
  const bool streams = out.model.residual && !out.model.residual->is_plain();
  out.log = read_table<LogRecipe>(root, "log", {.diagnostics_every = streams ? 10 : 0});
}

}  // namespace

DType compute_dtype_of(std::string_view name) {
  if (name == "fp32") return DType::f32;
  if (name == "bf16") return DType::bf16;
  fail<ConfigError>(fmt::format("dtype must be \"fp32\" or \"bf16\", got \"{}\"", name));
}

ModelSettings model_settings(const ModelRecipe& recipe) {
  return {recipe.residual, recipe.decoder_reads, recipe.queries};
}

std::vector<std::string> frozen_parts(std::int64_t stage) {
  if (stage == 2) return {"tokenizer"};
  if (stage == 3) return {"encoder"};
  return {};
}

Recipe parse_recipe(const ConfigDocument& document) {
  ConfigReader root = document.root();
  Recipe out = read_record(root, Recipe{});
  if (out.run_dir.empty()) root.refuse("run_dir", "must name a folder, got \"\"");
  if (out.memory_gib > 0 && out.recompute)
    root.refuse("memory_gib",
                "must be left out with recompute = true, which recomputes all blocks");
  if (std::find(out.freeze.begin(), out.freeze.end(), "") != out.freeze.end())
    root.refuse("freeze", "must not hold \"\", which would freeze everything");

  out.mesh = read_table<MeshRecipe>(root, "mesh");
  out.model = read_model(root.table("model"));
  out.lora = read_lora(root, out.model);
  if (out.adapts()) out.freeze = {""};
  out.data = read_data(root.table("data"));
  out.view = read_view(root.table("view"));
  out.optimizer = read_optimizer(root.table("optimizer"), out.steps);
  out.batch = read_batch(root.table("batch"), out.data.pack_tokens > 0);
  read_small_tables(root, out);
  out.curriculum = read_curriculum(root, out.data);
  root.finish();
  out.resolved = document.resolved();
  return out;
}

Recipe load_recipe(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  return parse_recipe(ConfigDocument::load(path, overrides));
}

std::vector<std::filesystem::path> recipe_stages(const std::filesystem::path& path) {
  const ConfigDocument document = ConfigDocument::load(path);
  ConfigReader root = document.root();
  if (!root.has("stages")) return {path};
  const auto stages = root.strings("stages", kRequired);
  root.finish();
  if (stages.empty()) root.refuse("stages", "must name at least one recipe, got none");
  std::vector<std::filesystem::path> out;
  for (const std::string& stage : stages) out.push_back(find_recipe_from(document.name(), stage));
  return out;
}

void check_mesh(const Recipe& recipe, std::int64_t ranks) {
  const auto [pp, dp, ep] = mesh_shape(ranks, recipe.mesh.pp, recipe.mesh.ep);
  if ((pp > 1 || ep > 1) && recipe.memory_gib > 0)
    fail<ConfigError>(fmt::format(
        "memory_gib must be 0 with mesh.{} above 1 (the plan is of one pass through the whole "
        "model), got {}",
        pp > 1 ? "pp" : "ep", recipe.memory_gib));
  if (pp == 1 && recipe.mesh.chunks > 1)
    fail<ConfigError>(
        fmt::format("mesh.chunks must be 1 without a pipeline, got {}", recipe.mesh.chunks));
  const bool packed = recipe.data.pack_tokens > 0;
  const std::int64_t share = packed ? dp : dp * recipe.batch.micro_batch;
  const std::int64_t rows = recipe.batch.global_size;
  if (rows % share == 0) return;
  std::string remedy = fmt::format("try {}", (rows / share + 1) * share);
  if (!packed && rows % dp == 0)
    remedy +=
        fmt::format(", or batch.micro_batch = {}", std::gcd(rows / dp, recipe.batch.micro_batch));
  fail<ConfigError>(
      fmt::format("batch.global_size must be a multiple of data-parallel ranks{} = {}, got {}: {}",
                  packed ? "" : " x batch.micro_batch", share, rows, remedy));
}

}  // namespace lectern
