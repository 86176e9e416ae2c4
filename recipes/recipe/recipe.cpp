#include "recipes/recipe/recipe.h"

#include "core/error.h"
#include "core/ops/sinkhorn.h"
#include "distributed/mesh.h"
#include "recipes/recipe/sources.h"

#include <algorithm>
#include <numeric>

namespace lectern {
namespace {

constexpr std::int64_t kMaxSteps = 1'000'000'000;
constexpr std::int64_t kMaxTokens = std::int64_t{1} << 20;

/// Settings of hyper-connections; "config" leaves all of them to config.json.
std::optional<ResidualConfig> read_residual(ConfigReader& table) {
  const std::string kind = table.choice("residual", "config", {"config", "plain", "hc", "mhc"});
  if (kind == "config" || kind == "plain") {
    for (const char* key : {"streams", "convention", "sinkhorn_iterations", "exact_h_res", "merge",
                            "h_pre", "h_post", "h_res", "residual_in"})
      if (table.has(key)) table.refuse(key, "needs residual = \"hc\" or \"mhc\"");
    return kind == "plain" ? std::optional(ResidualConfig{}) : std::nullopt;
  }
  ResidualConfig out{.kind = residual_kind_from(kind)};
  out.exact = table.boolean("exact_h_res", false);
  out.streams = table.integer("streams", 4, within(1, out.exact ? 4 : 8));
  out.convention = stream_convention_from(
      table.choice("convention", "deepseek-v4", {"paper", "megatron", "deepseek-v4"}));
  out.iterations = table.integer("sinkhorn_iterations", 20, within(1, 1000));
  out.merge = stream_merge_from(table.choice("merge", "head", {"head", "mean"}));
  out.h_pre = table.boolean("h_pre", true);
  out.h_post = table.boolean("h_post", true);
  out.h_res = table.boolean("h_res", true);
  set_residual_in(table.choice("residual_in", "both", {"both", "encoder", "decoder"}), out);
  return out;
}

ModelRecipe read_model(ConfigReader table) {
  ModelRecipe out;
  out.config = table.string("config", kRequired);
  out.init = table.string("init", "random");
  out.init_encoder = table.string("init_encoder", "");
  out.init_decoder = table.string("init_decoder", "");
  out.init_sam = table.string("init_sam", "");
  out.init_qwen2 = table.string("init_qwen2", "");
  out.decoder_reads = table.choice("decoder_reads", "config", {"config", "queries", "visual"});
  out.queries = table.integer("queries", 0, within(0, 1 << 20));
  if (out.queries > 0 && out.decoder_reads == "visual")
    table.refuse("queries", "must be left out with decoder_reads = \"visual\", which has none");
  out.residual = read_residual(table);
  if (out.config.empty()) table.refuse("config", "must name a config.json, got \"\"");
  if (out.init.empty()) table.refuse("init", "must be \"random\" or a folder, got \"\"");
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
  DataRecipe out;
  const bool has_sources = table.has("sources");
  out.shards = has_sources ? table.strings("shards", std::vector<std::string>{})
                           : table.strings("shards", kRequired);
  if (has_sources && !out.shards.empty())
    table.refuse("shards", "must be left out with [[data.sources]], got both");
  if (!has_sources && out.shards.empty())
    table.refuse("shards", "must name at least one folder, got none");
  out.shard_weights = table.numbers("shard_weights", std::vector<double>{}, not_negative());
  check_weights(table, "shard_weights", out.shard_weights, out.shards.size(), "shards");
  out.validation = table.string("validation", "");
  out.tokenizer = table.string("tokenizer", kRequired);
  out.level = table.choice("level", "page", {"page", "line", "word", "mixed"});
  out.page_share = table.number("page_share", out.level == "page", not_negative());
  out.line_share = table.number("line_share", out.level == "line", not_negative());
  out.word_share = table.number("word_share", out.level == "word", not_negative());
  if (out.level == "mixed" && out.page_share + out.line_share + out.word_share <= 0)
    table.refuse("level",
                 "= \"mixed\" needs page_share, line_share or word_share above 0, got none");
  out.prompt = table.string("prompt", "<image>\nFree OCR.");
  const auto image = out.prompt.find("<image>");
  if (image == std::string::npos || out.prompt.find("<image>", image + 1) != std::string::npos)
    table.refuse("prompt", "must have <image> exactly once");
  out.max_text_tokens = table.integer("max_text_tokens", 4096, within(1, kMaxTokens));
  out.pack_tokens = table.integer("pack_tokens", 0, within(0, kMaxTokens));
  if (out.pack_tokens > 0 && out.pack_tokens <= out.max_text_tokens)
    table.refuse("pack_tokens", fmt::format("must be 0 or above data.max_text_tokens = {}, got {}",
                                            out.max_text_tokens, out.pack_tokens));
  out.ascii_only = table.boolean("ascii_only", false);
  out.max_characters = table.integer("max_characters", 0, within(0, 1 << 20));
  out.text_height = table.integer("text_height", 0, within(0, 4096));
  out.margin = table.integer("margin", 4, within(0, 4096));
  out.text_at = table.choice("text_at", "middle", {"middle", "top"});
  out.jitter_pixels = table.integer("jitter_pixels", 0, within(0, 4096));
  out.workers = table.integer("workers", 1, within(0, 256));
  out.sources = read_sources(table, "sources", out);
  if (has_sources && out.sources.empty())
    table.refuse("sources", "must have at least one source, got none");
  out.validation_sources = read_sources(table, "validation_sources", out);
  if (!out.validation_sources.empty() && !out.validation.empty())
    table.refuse("validation", "must be left out with [[data.validation_sources]], got both");
  return out;
}

ViewRecipe read_view(ConfigReader table) {
  ViewRecipe out;
  out.global_size = table.integer("global_size", 1024, within(16, 8192));
  out.tile_size = table.integer("tile_size", 768, within(16, 8192));
  out.crop = table.boolean("crop", true);
  out.resolutions = table.integers("resolutions", std::vector<std::int64_t>{}, within(16, 8192));
  if (out.crop && !out.resolutions.empty())
    table.refuse("resolutions", "must be empty with view.crop = true");
  out.read_by = table.choice("read_by", "page", {"page", "pieces"});
  out.piece_width = table.integer("piece_width", 112, within(1, 1 << 16));
  out.piece_dpi = table.number("piece_dpi", 100.0, Range<double>{.min = 18, .max = 1200});
  return out;
}

void read_schedule(ConfigReader& table, std::int64_t steps, OptimizerRecipe& out) {
  out.learning_rate = table.number("learning_rate", kRequired, positive());
  out.schedule = table.choice("schedule", "cosine", {"cosine", "constant", "step"});
  out.min_learning_rate = table.number("min_learning_rate", 0.0, not_negative());
  if (out.min_learning_rate > out.learning_rate)
    table.refuse("min_learning_rate", fmt::format("must be at most learning_rate = {}, got {}",
                                                  out.learning_rate, out.min_learning_rate));
  out.warmup_steps = table.integer("warmup_steps", 0, within(0, kMaxSteps));
  if (out.warmup_steps > steps)
    table.refuse("warmup_steps",
                 fmt::format("must be at most steps = {}, got {}", steps, out.warmup_steps));
  out.step_milestones =
      table.integers("step_milestones", std::vector<std::int64_t>{}, within(1, kMaxSteps));
  if (std::adjacent_find(out.step_milestones.begin(), out.step_milestones.end(),
                         std::greater_equal<>()) != out.step_milestones.end())
    table.refuse("step_milestones", "must rise from one to the next");
  out.step_factors = table.numbers("step_factors", std::vector<double>{}, not_negative());
  if (out.step_factors.size() != out.step_milestones.size())
    table.refuse("step_factors",
                 fmt::format("must have one number for each of the {} step_milestones, got {}",
                             out.step_milestones.size(), out.step_factors.size()));
  if (out.schedule == "step" && out.step_milestones.empty())
    table.refuse("schedule", "= \"step\" needs step_milestones and step_factors, got none");
}

OptimizerRecipe read_optimizer(ConfigReader table, std::int64_t steps) {
  OptimizerRecipe out;
  read_schedule(table, steps, out);
  const auto betas = table.numbers("betas", std::vector<double>{0.9, 0.95}, between(0.0, 0.999999));
  if (betas.size() != 2)
    table.refuse("betas", fmt::format("must be two numbers, got {}", betas.size()));
  out.beta1 = betas[0];
  out.beta2 = betas[1];
  out.epsilon = table.number("epsilon", 1e-8, positive());
  out.weight_decay = table.number("weight_decay", 0.1, not_negative());
  out.decay_norms_and_biases = table.boolean("decay_norms_and_biases", false);
  out.clip_norm = table.number("clip_norm", 1.0, not_negative());
  return out;
}

BatchRecipe read_batch(ConfigReader table, bool packed) {
  BatchRecipe out;
  out.global_size = table.integer("global_size", kRequired, within(1, 1 << 20));
  out.micro_batch = table.integer("micro_batch", 1, within(1, 1 << 16));
  if (!packed && out.global_size % out.micro_batch != 0)
    table.refuse("micro_batch", fmt::format("must divide batch.global_size = {}, got {}",
                                            out.global_size, out.micro_batch));
  return out;
}

MeshRecipe read_mesh(ConfigReader table) {
  MeshRecipe out;
  out.pp = table.integer("pp", 1, within(1, 1 << 20));
  out.ep = table.integer("ep", 1, within(1, 1 << 20));
  out.zero = table.boolean("zero", true);
  out.bucket_bytes = table.integer("bucket_bytes", 4 << 20, within(4, 1 << 30));
  out.chunks = table.integer("chunks", 1, within(1, 1 << 10));
  out.split = table.integers("split", std::vector<std::int64_t>{}, within(1, 1 << 20));
  out.wait_seconds = table.number("wait_seconds", 600.0, not_negative());
  out.verify_every = table.integer("verify_every", 100, within(0, kMaxSteps));
  return out;
}

EncoderCacheRecipe read_cache(ConfigReader table, const Recipe& recipe) {
  EncoderCacheRecipe out;
  const bool frozen =
      std::find(recipe.freeze.begin(), recipe.freeze.end(), "encoder") != recipe.freeze.end();
  out.enabled = table.boolean("enabled", recipe.stage == 3 && frozen);
  // Prefixes of names may freeze the encoder, too: EncoderFeatures looks, which has the model.
  if (out.enabled && recipe.freeze.empty())
    table.refuse("enabled",
                 "= true needs \"encoder\" in `freeze`: the output of an encoder that trains "
                 "cannot be kept");
  out.max_bytes = table.integer("max_bytes", std::int64_t{16} << 30, at_least(0));
  out.dir = table.string("dir", "");
  return out;
}

void read_small_tables(ConfigReader& root, Recipe& out) {
  ConfigReader moe = root.table("moe");
  out.moe.balance_loss = moe.number("balance_loss", 0.0, not_negative());
  out.moe.bias_balancing_rate = moe.number("bias_balancing_rate", 0.0, not_negative());

  ConfigReader checkpoint = root.table("checkpoint");
  out.checkpoint.every = checkpoint.integer("every", 1000, within(0, kMaxSteps));
  out.checkpoint.keep = checkpoint.integer("keep", 2, within(1, kMaxSteps));
  out.checkpoint.asynchronous = checkpoint.boolean("asynchronous", true);

  ConfigReader evaluation = root.table("evaluation");
  out.evaluation.every = evaluation.integer("every", 1000, within(0, kMaxSteps));
  out.evaluation.samples = evaluation.integer("samples", 64, within(0, kMaxSteps));
  out.evaluation.max_new_tokens =
      evaluation.integer("max_new_tokens", out.data.max_text_tokens, within(1, kMaxTokens));

  out.encoder_cache = read_cache(root.table("encoder_cache"), out);

  ConfigReader log = root.table("log");
  out.log.wall_clock = log.boolean("wall_clock", true);
  out.log.tensorboard = log.boolean("tensorboard", true);
  const bool streams = out.model.residual && !out.model.residual->is_plain();
  out.log.diagnostics_every =
      log.integer("diagnostics_every", streams ? 10 : 0, within(0, kMaxSteps));
  out.log.progress_seconds = log.number("progress_seconds", 10.0, positive());
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
  Recipe out;
  out.stage = root.integer("stage", kRequired, within(1, 3));
  out.steps = root.integer("steps", kRequired, within(1, kMaxSteps));
  out.run_dir = root.string("run_dir", kRequired);
  if (out.run_dir.empty()) root.refuse("run_dir", "must name a folder, got \"\"");
  out.seed = root.integer("seed", 0, at_least(0));
  out.threads = root.integer("threads", 0, within(0, 4096));
  out.device = root.choice("device", "cpu", {"cpu", "cuda"});
  out.dtype = root.choice("dtype", "fp32", {"fp32", "bf16"});
  out.recompute = root.boolean("recompute", false);
  out.memory_gib = root.number("memory_gib", 0, between(0, 1e6));
  if (out.memory_gib > 0 && out.recompute)
    root.refuse("memory_gib",
                "must be left out with recompute = true, which recomputes all blocks");
  out.recompute_streams = root.integer(
      "recompute_streams", out.recompute || out.memory_gib > 0 ? -1 : 0, within(-1, 4096));
  out.log_every = root.integer("log_every", 1, within(1, kMaxSteps));
  out.freeze = root.strings("freeze", frozen_parts(out.stage));
  if (std::find(out.freeze.begin(), out.freeze.end(), "") != out.freeze.end())
    root.refuse("freeze", "must not hold \"\", which would freeze everything");

  out.mesh = read_mesh(root.table("mesh"));
  out.model = read_model(root.table("model"));
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
  return {stages.begin(), stages.end()};
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
