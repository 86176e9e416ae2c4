#include "recipes/ablate.h"

#include "core/error.h"
#include "core/ops/sinkhorn.h"
#include "recipes/recipe.h"
#include "recipes/toml_config.h"

#include <algorithm>

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
  out.recipe = table.string("recipe", "recipes/quickstart-stage1.toml");
  out.variants = variants_in(table, {"plain", "hc", "mhc", "mhc-paper", "exact"});
  out.seeds = seeds_in(table);
  out.steps = table.integer("steps", out.enabled ? kRequired : std::optional<std::int64_t>(1),
                            within(1, 1 << 24));
  out.evaluation_samples = table.integer("evaluation_samples", 200, within(0, 1 << 20));
  return out;
}

}  // namespace

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
  out.text = read_text(root.table("text"));
  out.ocr = read_ocr(root.table("ocr"));
  root.finish();
  if (!out.text.enabled && !out.ocr.enabled)
    fail<ConfigError>(fmt::format("{}: text.enabled or ocr.enabled must be true", path.string()));
  return out;
}

std::vector<AblationJob> ablation_jobs(const AblationRecipe& recipe) {
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

std::string job_settings(const AblationRecipe& recipe, const AblationJob& job) {
  if (job.task == "ocr")
    return fmt::format("{} steps {} samples {} diagnostics {}", recipe.ocr.recipe, recipe.ocr.steps,
                       recipe.ocr.evaluation_samples, recipe.diagnostics_every);
  const TextAblation& text = recipe.text;
  return fmt::format(
      "{} width {} heads {} sequence {} batch {} steps {} rate {} warmup {} clip {} held out {} "
      "diagnostics {}",
      text.folder, text.width, text.heads, text.sequence, text.batch, text.steps,
      text.learning_rate, text.warmup_steps, text.clip_norm, text.validation_sequences,
      recipe.diagnostics_every);
}

}  // namespace lectern
