// What an ablation of a training says: columns, findings, error rates by length, compression.
#include "recipes/ablate/report_parts.h"
#include "recipes/report/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace lectern {
namespace {

using nlohmann::json;

/// Whether the variants differ in the tokens that the decoder is given.
bool differ_in_tokens(const AblationTable& table) {
  std::set<double> counts;
  for (const AblationRow& row : table.rows) counts.insert(row.decoder_tokens);
  return counts.size() > 1;
}

/// "10 and more characters", "4 to 6 characters".
std::string length_name(const std::vector<LengthGroup>& groups, std::size_t at) {
  if (at + 1 == groups.size()) return fmt::format("{} characters and more", groups[at].from);
  return fmt::format("{} to {} characters", groups[at].from, groups[at + 1].from - 1);
}

/// 1 - error rate over text tokens a decoder token, a series for each variant.
std::string compression_plot(const AblationTable& table) {
  PlotArgs args;
  args.title = "read right, by compression";
  args.x_label = "text tokens for each token of the picture";
  args.y_label = "1 - character error rate";
  args.y_min = 0;
  args.y_max = 1;
  for (std::size_t i = 0; i < table.rows.size(); ++i) {
    const AblationRow& row = table.rows[i];
    PlotSeries series;
    series.color = static_cast<int>(i);
    series.dots = true;
    for (const LengthGroup& group : row.lengths) {
      if (row.decoder_tokens <= 0) continue;
      series.x.push_back(group.text_tokens / row.decoder_tokens);
      series.y.push_back(std::max(0.0, 1 - group.cer.mean));
    }
    args.series.push_back(std::move(series));
  }
  return line_plot(args);
}

json settings(const TrainingAblation& training) {
  json then = json::array(), variants = json::array();
  for (const FollowingRun& run : training.then) then.push_back(run.steps);
  for (const TrainedVariant& variant : training.variants)
    if (!variant.set.empty() || !variant.stages.empty())
      variants.push_back(
          {{"label", variant.label}, {"stages", variant.stages}, {"set", variant.set}});
  return {{"recipe", training.recipe},
          {"steps", training.steps},
          {"seeds", training.seeds},
          {"then", std::move(then)},
          {"evaluation_samples", training.evaluation_samples},
          {"curve_samples", training.curve_samples},
          {"curve_every", training.curve_every},
          {"variants", std::move(variants)}};
}

/// Error rates by length, of the tables that have them.
json lengths_json(const std::vector<AblationTable>& tables) {
  json out = json::array();
  for (const AblationTable& table : tables) {
    const auto lengths = length_table(table);
    if (lengths.empty()) continue;
    json rows = json::array();
    for (std::size_t i = 1; i < lengths.size(); ++i) rows.push_back({{"cells", lengths[i]}});
    out.push_back({{"head", lengths.front()},
                   {"rows", std::move(rows)},
                   {"compression", differ_in_tokens(table) ? compression_plot(table) : ""}});
  }
  return out;
}

}  // namespace

std::vector<std::string> training_header(const AblationTable& table) {
  std::vector<std::string> out = {"variant", "runs"};
  if (differ_in_tokens(table))
    for (const char* cell : {"tokens of a view", "compression"}) out.emplace_back(cell);
  for (const char* cell : {"character error rate", "gap", "held-out loss", "gap", "read exactly",
                           "seconds of training", "time"})
    out.emplace_back(cell);
  return out;
}

std::vector<std::string> training_cells(const AblationTable& table, const AblationRow& row) {
  const bool is_baseline = row.variant == table.baseline;
  std::vector<std::string> out = {row.label, std::to_string(row.finished)};
  if (differ_in_tokens(table)) {
    out.push_back(fmt::format("{:g}", row.decoder_tokens));
    out.push_back(fmt::format("{:g}×", row.visual_tokens / std::max(1.0, row.decoder_tokens)));
  }
  out.push_back(with_error(row.cer, 3));
  out.push_back(is_baseline ? "0" : with_error(row.cer_gap, 3, true));
  out.push_back(with_error(row.loss, 3));
  out.push_back(is_baseline ? "0" : with_error(row.loss_gap, 3, true));
  out.push_back(row.exact.count == 0 ? "–" : fmt::format("{:.1f} %", 100 * row.exact.mean));
  out.push_back(with_error(row.train_seconds, 0));
  out.push_back(is_baseline ? "–" : percent(row.time_overhead));
  return out;
}

std::vector<std::string> training_findings(const std::vector<AblationTable>& tables) {
  std::vector<std::string> out;
  for (const AblationTable& table : tables) {
    const AblationRow* baseline = find_row(table, table.baseline);
    if (baseline == nullptr) continue;
    for (const AblationRow& row : table.rows) {
      if (row.variant == table.baseline || row.cer_gap.count == 0) continue;
      out.push_back(fmt::format(
          "{} against {}: character error rate {} ({}), held-out loss {} ({}).", row.label,
          baseline->label, with_error(row.cer_gap, 3, true), judged(row.cer_gap, baseline->label),
          with_error(row.loss_gap, 3, true), judged(row.loss_gap, baseline->label)));
    }
  }
  return out;
}

std::vector<std::vector<std::string>> length_table(const AblationTable& table) {
  if (table.rows.empty() || table.rows.front().lengths.empty()) return {};
  const auto& groups = table.rows.front().lengths;
  std::vector<std::vector<std::string>> out = {{"variant"}};
  for (std::size_t i = 0; i < groups.size(); ++i) out[0].push_back(length_name(groups, i));
  for (const AblationRow& row : table.rows) {
    out.push_back({row.label});
    for (const LengthGroup& group : groups) {
      const auto found = std::find_if(row.lengths.begin(), row.lengths.end(),
                                      [&](const LengthGroup& g) { return g.from == group.from; });
      out.back().push_back(found == row.lengths.end() ? "–" : with_error(found->cer, 3));
    }
  }
  return out;
}

AblationWords training_words(const AblationRecipe& recipe,
                             const std::vector<AblationTable>& tables) {
  AblationWords out;
  out.title = recipe.training.title;
  out.lead = recipe.training.about;
  out.values = {{"training", settings(recipe.training)}, {"lengths", lengths_json(tables)}};
  out.plots = {
      {"eval_cer", "held-out character error rate", false, false},
      {"eval_loss", "held-out loss", false, false},
      {"loss", "training loss", false, true},
      {"eval_cer", "held-out character error rate over time", false, false, "train_seconds"},
      {"eval_loss", "held-out loss over time", false, false, "train_seconds"}};
  return out;
}

}  // namespace lectern
