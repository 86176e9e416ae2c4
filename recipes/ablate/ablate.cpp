#include "recipes/ablate/ablate.h"

#include "core/error.h"
#include "core/io/files.h"
#include "core/ops/sinkhorn.h"
#include "recipes/ablate/content.h"
#include "recipes/config/toml_config.h"
#include "recipes/recipe/recipe.h"

#include <algorithm>
#include <cctype>

namespace lectern {
namespace {

ResidualConfig streams_of(ResidualKind kind, StreamConvention convention) {
  return {.kind = kind, .convention = convention, .merge = StreamMerge::mean};
}

std::vector<AblationVariant> make_variants() {
  using enum StreamConvention;
  std::vector<AblationVariant> out = {
      {"plain", "plain residual", {}},
      {"hc", "HC", streams_of(ResidualKind::hc, paper)},
      {"mhc", "mHC, rows first (deepseek-v4)", streams_of(ResidualKind::mhc, deepseek_v4)},
      {"mhc-paper", "mHC, columns first (paper)", streams_of(ResidualKind::mhc, paper)},
      {"mhc-megatron", "mHC, megatron", streams_of(ResidualKind::mhc, megatron)},
      {"exact", "mHC, exact (24 permutations)", streams_of(ResidualKind::mhc, megatron)},
      {"hc-res", "HC, H_res only", streams_of(ResidualKind::hc, paper)},
      {"hc-res-pre", "HC, H_res and H_pre", streams_of(ResidualKind::hc, paper)}};
  for (AblationVariant& variant : out) {
    variant.residual.exact = variant.name == "exact";
    variant.residual.h_post = !variant.name.starts_with("hc-res");
    variant.residual.h_pre = variant.name != "hc-res";
  }
  return out;
}

std::vector<std::string> variants_in(ConfigReader& table, const std::vector<std::string>& all) {
  const auto names = table.strings("variants", all);
  for (const std::string& name : names)
    if (std::none_of(ablation_variants().begin(), ablation_variants().end(),
                     [&](const AblationVariant& variant) { return variant.name == name; }))
      table.refuse("variants", fmt::format("has an unknown variant \"{}\"", name));
  if (names.empty()) table.refuse("variants", "must name at least one, got none");
  return names;
}

std::vector<std::int64_t> seeds_in(ConfigReader& table) {
  const auto seeds = table.integers("seeds", std::vector<std::int64_t>{1, 2, 3}, at_least(0));
  if (seeds.empty()) table.refuse("seeds", "must have at least one, got none");
  return seeds;
}

TextAblation read_text(ConfigReader table) {
  TextAblation out;
  out.enabled = table.boolean("enabled", true);
  out.folder = table.string("folder", "out/ablate-text");
  out.fetch = table.string("fetch", "");
  out.depths = table.integers("depths", std::vector<std::int64_t>{12, 24, 48}, within(1, 1024));
  out.variants =
      variants_in(table, {"plain", "hc", "mhc", "mhc-paper", "exact", "hc-res", "hc-res-pre"});
  out.seeds = seeds_in(table);
  out.width = table.integer("width", 64, within(2, 1 << 14));
  out.heads = table.integer("heads", 4, within(1, 1 << 10));
  if (out.width % (2 * out.heads) != 0)
    table.refuse("heads", fmt::format("x 2 must divide width = {}, got {}", out.width, out.heads));
  out.sequence = table.integer("sequence", 128, within(2, 1 << 16));
  out.batch = table.integer("batch", 8, within(1, 1 << 12));
  out.steps = table.integer("steps", kRequired, within(1, 1 << 24));
  out.learning_rate = table.number("learning_rate", 1e-3, positive());
  out.warmup_steps = table.integer("warmup_steps", 0, within(0, out.steps));
  out.clip_norm = table.number("clip_norm", 0.0, not_negative());
  out.validation_sequences = table.integer("validation_sequences", 256, within(1, 1 << 20));
  return out;
}

OcrAblation read_ocr(ConfigReader table) {
  OcrAblation out;
  out.enabled = table.boolean("enabled", true);
  out.recipe = table.string("recipe", "recipes/configs/quickstart/stage1.toml");
  out.variants = variants_in(table, {"plain", "hc", "mhc", "mhc-paper", "exact"});
  out.seeds = seeds_in(table);
  out.steps = table.integer("steps", out.enabled ? kRequired : std::optional<std::int64_t>(1),
                            within(1, 1 << 24));
  out.evaluation_samples = table.integer("evaluation_samples", 200, within(0, 1 << 20));
  return out;
}

/// Names become file names.
void check_name(const ConfigReader& table, const std::string& name) {
  const bool fits = !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '_';
  });
  if (!fits)
    table.refuse("name", fmt::format("must be of letters, digits, - and _, got \"{}\"", name));
}

std::vector<TrainedVariant> read_variants(ConfigReader& table, std::size_t following) {
  std::vector<TrainedVariant> out;
  for (ConfigReader entry : table.tables("variants")) {
    TrainedVariant variant;
    variant.name = entry.string("name", kRequired);
    check_name(entry, variant.name);
    variant.label = entry.string("label", variant.name);
    variant.set = entry.strings("set", std::vector<std::string>{});
    variant.stages = entry.integers("stages", std::vector<std::int64_t>{}, within(1, 3));
    if (variant.stages.size() != following)
      entry.refuse("stages", fmt::format("must have one for each of the {} runs of training.then, "
                                         "got {}",
                                         following, variant.stages.size()));
    if (std::any_of(out.begin(), out.end(),
                    [&](const TrainedVariant& other) { return other.name == variant.name; }))
      entry.refuse("name", fmt::format("must be unique, got \"{}\" twice", variant.name));
    out.push_back(std::move(variant));
  }
  if (out.empty()) table.refuse("variants", "must have at least one, got none");
  return out;
}

TrainingAblation read_training(ConfigReader table) {
  TrainingAblation out;
  out.enabled = true;
  out.title = table.string("title", "Ablation");
  out.about = table.string("about", "");
  out.recipe = table.string("recipe", kRequired);
  out.needs = table.string("needs", "");
  out.fetch = table.string("fetch", "");
  out.set = table.strings("set", std::vector<std::string>{});
  out.seeds = seeds_in(table);
  out.steps = table.integer("steps", kRequired, within(1, 1 << 24));
  out.curve_every = table.integer("curve_every", 500, within(1, 1 << 24));
  out.curve_samples = table.integer("curve_samples", 100, within(1, 1 << 20));
  out.evaluation_samples = table.integer("evaluation_samples", 500, within(1, 1 << 20));
  for (ConfigReader entry : table.tables("then"))
    out.then.push_back({.steps = entry.integer("steps", kRequired, within(1, 1 << 24)),
                        .set = entry.strings("set", std::vector<std::string>{})});
  out.variants = read_variants(table, out.then.size());
  out.baseline = table.string("baseline", out.variants.front().name);
  if (std::none_of(out.variants.begin(), out.variants.end(),
                   [&](const TrainedVariant& variant) { return variant.name == out.baseline; }))
    table.refuse("baseline",
                 fmt::format("must be the name of a variant, got \"{}\"", out.baseline));
  return out;
}

/// Whether variants of a seed begin with the same run.
bool has_shared_start(const TrainingAblation& training) {
  return !training.then.empty() &&
         std::any_of(training.variants.begin(), training.variants.end(),
                     [](const TrainedVariant& variant) { return variant.set.empty(); });
}

/// Shared first runs come before all else, so that no worker waits for one.
std::vector<AblationJob> training_jobs(const TrainingAblation& training) {
  std::vector<AblationJob> out;
  double following = 0;
  for (const FollowingRun& run : training.then) following += static_cast<double>(run.steps);
  const double first = static_cast<double>(training.steps);
  if (has_shared_start(training))
    for (const std::int64_t seed : training.seeds)
      out.push_back({fmt::format("start-s{}", seed), "start", "", 0, seed, first});
  for (const std::int64_t seed : training.seeds)
    for (const TrainedVariant& variant : training.variants) {
      const bool shares = has_shared_start(training) && variant.set.empty();
      out.push_back({fmt::format("{}-s{}", variant.name, seed), "training", variant.name, 0, seed,
                     following + (shares ? 0 : first)});
    }
  return out;
}

}  // namespace

std::string variant_label(const AblationRecipe& recipe, const std::string& task,
                          const std::string& variant) {
  if (task == "training")
    for (const TrainedVariant& one : recipe.training.variants)
      if (one.name == variant) return one.label;
  return ablation_variant(variant).label;
}

std::string baseline_of(const AblationRecipe& recipe, const std::string& task) {
  return task == "training" ? recipe.training.baseline : "plain";
}

const std::vector<AblationVariant>& ablation_variants() {
  static const std::vector<AblationVariant> variants = make_variants();
  return variants;
}

const AblationVariant& ablation_variant(const std::string& name) {
  for (const AblationVariant& variant : ablation_variants())
    if (variant.name == name) return variant;
  fail<ConfigError>(fmt::format("ablate: variant must be one of the known ones, got \"{}\"", name));
}

AblationRecipe load_ablation(const std::filesystem::path& path,
                             const std::vector<std::string>& overrides) {
  const ConfigDocument document = ConfigDocument::load(path, overrides);
  ConfigReader root = document.root();
  AblationRecipe out;
  out.name = path.string();
  out.out = root.string("out", kRequired);
  if (out.out.empty()) root.refuse("out", "must name a folder, got \"\"");
  out.parallel = root.integer("parallel", 0, within(0, 4096));
  out.diagnostics_every = root.integer("diagnostics_every", 5, within(1, 1 << 24));
  if (root.has("training")) {
    for (const char* key : {"text", "ocr"})
      if (root.has(key)) root.refuse(key, "must be left out with [training], got both");
    out.text.enabled = out.ocr.enabled = false;
    out.training = read_training(root.table("training"));
    root.finish();
    return out;
  }
  out.text = read_text(root.table("text"));
  out.ocr = read_ocr(root.table("ocr"));
  root.finish();
  if (!out.text.enabled && !out.ocr.enabled)
    fail<ConfigError>(fmt::format("{}: text.enabled or ocr.enabled must be true", path.string()));
  return out;
}

std::vector<AblationJob> ablation_jobs(const AblationRecipe& recipe) {
  if (recipe.training.enabled) return training_jobs(recipe.training);
  std::vector<AblationJob> out;
  const TextAblation& text = recipe.text;
  const OcrAblation& ocr = recipe.ocr;
  const std::size_t rounds =
      std::max(text.enabled ? text.seeds.size() : 0, ocr.enabled ? ocr.seeds.size() : 0);
  // The OCR task costs about as much as a text model of this many layers, step for step.
  constexpr double kOcrLayers = 40;
  for (std::size_t round = 0; round < rounds; ++round) {
    if (text.enabled && round < text.seeds.size())
      for (const std::int64_t depth : text.depths)
        for (const std::string& variant : text.variants)
          out.push_back({fmt::format("text-d{}-{}-s{}", depth, variant, text.seeds[round]), "text",
                         variant, depth, text.seeds[round],
                         static_cast<double>(depth * text.steps) * (variant == "plain" ? 1 : 1.4)});
    if (ocr.enabled && round < ocr.seeds.size())
      for (const std::string& variant : ocr.variants)
        out.push_back({fmt::format("ocr-{}-s{}", variant, ocr.seeds[round]), "ocr", variant, 0,
                       ocr.seeds[round], kOcrLayers * static_cast<double>(ocr.steps)});
  }
  return out;
}

namespace {

/// What a training recipe says and reads.
std::string recipe_hash(const Recipe& recipe) {
  return sha256_of(recipe.resolved + content_hash(inputs_of(recipe))).substr(0, 16);
}

}  // namespace

std::string job_settings(const AblationRecipe& recipe, const AblationJob& job) {
  if (job.task == "training" || job.task == "start") return training_settings(recipe, job);
  if (job.task == "ocr")
    return fmt::format("{} steps {} samples {} diagnostics {} of {}", recipe.ocr.recipe,
                       recipe.ocr.steps, recipe.ocr.evaluation_samples, recipe.diagnostics_every,
                       recipe_hash(load_recipe(recipe.ocr.recipe)));
  const TextAblation& text = recipe.text;
  return fmt::format(
      "{} width {} heads {} sequence {} batch {} steps {} rate {} warmup {} clip {} held out {} "
      "diagnostics {} of {}",
      text.folder, text.width, text.heads, text.sequence, text.batch, text.steps,
      text.learning_rate, text.warmup_steps, text.clip_norm, text.validation_sequences,
      recipe.diagnostics_every, content_hash({text.folder}));
}

}  // namespace lectern
