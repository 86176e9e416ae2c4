// What an ablation of residual connections says: columns, findings beside the paper's, settings.
#include "recipes/ablate/report_parts.h"

#include <fmt/format.h>

#include <algorithm>

namespace lectern {
namespace {

/// Gains run from 1 to thousands.
std::string gain(const MeanWithError& spread) {
  return with_error(spread, spread.mean < 10 ? 3 : spread.mean < 100 ? 1 : 0);
}

const std::vector<std::string> kHeader = {"variant",      "runs (diverged)",        "final loss",
                                          "gap to plain", "gain forward",           "gain backward",
                                          "deviation",    "grad norm max / median", "time",
                                          "memory"};

std::string gaps_sentence(const std::vector<AblationTable>& tables, const std::string& variant,
                          const std::string& paper) {
  std::string out, separator;
  bool all_lower = true, any_lower = false;
  for (const AblationTable& table : tables) {
    const AblationRow* row = find_row(table, variant);
    if (row == nullptr || row->loss_gap.count == 0) continue;
    const std::string verdict = judged(row->loss_gap, "plain");
    all_lower = all_lower && verdict == "lower";
    any_lower = any_lower || verdict == "lower";
    out += fmt::format("{}{}: {} ({})", separator, table.title, with_error(row->loss_gap, 4, true),
                       verdict);
    separator = "; ";
  }
  if (out.empty()) return "";
  return fmt::format("{}. {} {}. Here, gap of the final loss to plain: {}.",
                     all_lower   ? "Reproduced"
                     : any_lower ? "Reproduced in part"
                                 : "Not reproduced",
                     ablation_variant(variant).label, paper, out);
}

/// The deepest text table that has both variants.
const AblationTable* deepest(const std::vector<AblationTable>& tables, const std::string& a,
                             const std::string& b) {
  const AblationTable* out = nullptr;
  for (const AblationTable& table : tables)
    if (find_row(table, a) != nullptr && find_row(table, b) != nullptr &&
        (out == nullptr || table.depth > out->depth))
      out = &table;
  return out;
}

std::string gain_sentence(const std::vector<AblationTable>& tables) {
  const AblationTable* table = deepest(tables, "hc", "mhc");
  if (table == nullptr) return "";
  const AblationRow &hc = *find_row(*table, "hc"), &mhc = *find_row(*table, "mhc");
  const double hc_gain = std::max(hc.gain_forward.mean, hc.gain_backward.mean);
  const double mhc_gain = std::max(mhc.gain_forward.mean, mhc.gain_backward.mean);
  const bool bounded = mhc_gain<2, larger = hc_gain> 2 * mhc_gain;
  return fmt::format(
      "{}. The paper sees composite gains up to about 3000 with HC and at most about 1.6 with mHC "
      "(27B "
      "parameters, 30 layers). Here, at {}, the largest mean gain of a run is {:.3g} with HC and "
      "{:.3g} with mHC{}.",
      bounded && larger ? "Reproduced in direction"
      : bounded         ? "Half reproduced"
                        : "Not reproduced",
      table->title, hc_gain, mhc_gain,
      larger ? "" : "; HC stayed tame at this scale and length of training");
}

std::string stability_sentence(const std::vector<AblationTable>& tables) {
  std::string out, separator;
  bool worse = false;
  for (const AblationTable& table : tables) {
    const AblationRow *hc = find_row(table, "hc"), *mhc = find_row(table, "mhc");
    if (hc == nullptr || mhc == nullptr) continue;
    worse = worse || hc->diverged > mhc->diverged ||
            hc->grad_norm_ratio.mean > 2 * mhc->grad_norm_ratio.mean;
    out += fmt::format("{}{}: HC {:.1f} with {} of {} runs diverged, mHC {:.1f} with {} of {}",
                       separator, table.title, hc->grad_norm_ratio.mean, hc->diverged, hc->finished,
                       mhc->grad_norm_ratio.mean, mhc->diverged, mhc->finished);
    separator = "; ";
  }
  if (out.empty()) return "";
  return fmt::format(
      "{}. The paper sees a loss surge with a jump of the gradient norm near step 12000 with HC, "
      "none "
      "with mHC. Here, largest gradient norm over its median in the second half of a run: {}. "
      "These "
      "runs are far shorter.",
      worse ? "Reproduced in direction" : "Not reproduced", out);
}

std::string table_one_sentence(const std::vector<AblationTable>& tables) {
  std::string out, separator;
  bool all_ordered = true;
  for (const AblationTable& table : tables) {
    const AblationRow *res = find_row(table, "hc-res"), *pre = find_row(table, "hc-res-pre"),
                      *full = find_row(table, "hc");
    if (res == nullptr || pre == nullptr || full == nullptr) continue;
    all_ordered = all_ordered && res->loss_gap.mean < 0 &&
                  pre->loss_gap.mean <= res->loss_gap.mean &&
                  full->loss_gap.mean <= pre->loss_gap.mean;
    out += fmt::format("{}{}: {:+.4f}, {:+.4f}, {:+.4f}", separator, table.title,
                       res->loss_gap.mean, pre->loss_gap.mean, full->loss_gap.mean);
    separator = "; ";
  }
  if (out.empty()) return "";
  return fmt::format(
      "{}. The paper's Table 1, HC's parts at 27B: H_res -0.022, then with H_pre -0.025, then with "
      "H_post -0.027. Here, mean gaps in that order: {}.",
      all_ordered ? "Order reproduced" : "Order not reproduced", out);
}

nlohmann::json settings(const AblationRecipe& recipe) {
  nlohmann::json out = {{"text", false}, {"ocr", false}};
  const TextAblation& text = recipe.text;
  if (text.enabled)
    out["text"] = {{"folder", text.folder},
                   {"width", text.width},
                   {"heads", text.heads},
                   {"steps", text.steps},
                   {"batch", text.batch},
                   {"sequence", text.sequence},
                   {"learning_rate", fmt::format("{:g}", text.learning_rate)},
                   {"clip_norm", text.clip_norm > 0 ? fmt::format("{:g}", text.clip_norm) : ""},
                   {"validation_sequences", text.validation_sequences}};
  if (recipe.ocr.enabled)
    out["ocr"] = {{"recipe", recipe.ocr.recipe},
                  {"steps", recipe.ocr.steps},
                  {"samples", recipe.ocr.evaluation_samples}};
  return out;
}

}  // namespace

std::vector<std::string> residual_cells(const AblationTable& table, const AblationRow& row) {
  std::vector<std::string> out = {
      row.label,
      row.diverged > 0 ? fmt::format("{} ({})", row.finished, row.diverged)
                       : std::to_string(row.finished),
      with_error(row.loss, 4),
      row.variant == "plain" ? "0" : with_error(row.loss_gap, 4, true),
      gain(row.gain_forward),
      gain(row.gain_backward),
      row.deviation.count == 0 ? "–" : fmt::format("{:.1e}", row.deviation.mean),
      with_error(row.grad_norm_ratio, 2),
      row.variant == "plain" ? "–" : percent(row.time_overhead),
      row.variant == "plain" ? "–" : percent(row.memory_overhead)};
  if (table.task == "ocr") out.push_back(with_error(row.cer, 3));
  return out;
}

std::vector<std::string> residual_header(const AblationTable& table) {
  std::vector<std::string> out = kHeader;
  if (table.task == "ocr") out.push_back("character error rate");
  return out;
}

std::vector<std::string> residual_findings(const std::vector<AblationTable>& tables) {
  std::vector<std::string> out = {
      gaps_sentence(tables, "mhc", "ends below plain in the paper (-0.021 at 27B)"),
      gaps_sentence(tables, "hc",
                    "ends below plain in the paper until it becomes unstable (-0.027)"),
      table_one_sentence(tables), gain_sentence(tables), stability_sentence(tables)};
  std::erase(out, "");
  return out;
}

AblationWords residual_words(const AblationRecipe& recipe) {
  AblationWords out;
  out.title = "Residual streams: plain, HC and mHC";
  out.lead = "The same training with different residual connections: same batches, same seeds.";
  out.values = {{"residual", settings(recipe)}};
  out.plots = {{"loss", "training loss", false, true},
               {"grad_norm", "gradient norm", true, true},
               {"gain_forward", "composite gain, forward", true, false},
               {"gain_backward", "composite gain, backward", true, false},
               {"stream_entropy", "entropy of H_res", false, false}};
  return out;
}

}  // namespace lectern
