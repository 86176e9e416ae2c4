// What an ablation of a training says: columns, findings, error rates by length, compression.
#include "recipes/ablate/report_parts.h"
#include "recipes/report/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace lectern {
namespace {

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
  return "<p class=\"note\">Colours as above; a point for each length of text.</p>\n"
         "<figure class=\"card\" style=\"max-width:34rem\">" +
         line_plot(args) + "</figure>\n";
}

/// Figures of arXiv 2510.18234 (Fox, English pages) that the plot stands beside.
std::string paper_compression() {
  return "<h2>The paper's own curve</h2><p>DeepSeek-OCR, arXiv 2510.18234, English pages of Fox: "
         "precision and text tokens for each vision token, with 64 and with 100 vision tokens a "
         "page. A page, a model and a training of another size: compare shapes only.</p>" +
         html_table(
             {"text tokens of a page", "64 tokens", "compression", "100 tokens", "compression"},
             {{"600 to 700", "96.5 %", "10.5", "98.5 %", "6.7"},
              {"700 to 800", "93.8 %", "11.8", "97.3 %", "7.5"},
              {"800 to 900", "83.8 %", "13.2", "96.8 %", "8.5"},
              {"900 to 1000", "85.9 %", "15.1", "96.8 %", "9.7"},
              {"1000 to 1100", "79.3 %", "16.5", "91.5 %", "10.6"},
              {"1100 to 1200", "76.4 %", "17.7", "89.8 %", "11.3"},
              {"1200 to 1300", "59.1 %", "19.7", "87.1 %", "12.6"}});
}

std::string settings(const TrainingAblation& training) {
  std::string out = fmt::format("<p><code>{}</code>, {} steps with seeds",
                                escape_html(training.recipe), training.steps);
  for (const std::int64_t seed : training.seeds) out += fmt::format(" {}", seed);
  for (const FollowingRun& run : training.then) out += fmt::format(", then {} steps", run.steps);
  out += fmt::format(
      ". Variants of a seed see the same samples in the same order and begin with the same weights "
      "where they have them in common. All figures are on held-out text of documents that no "
      "training saw: {} samples at the end, {} every {} steps in the curves.</p>",
      training.evaluation_samples, training.curve_samples, training.curve_every);
  for (const TrainedVariant& variant : training.variants) {
    if (variant.set.empty() && variant.stages.empty()) continue;
    out += fmt::format("<p class=\"note\">{}:", escape_html(variant.label));
    for (const std::int64_t stage : variant.stages) out += fmt::format(" then stage {}", stage);
    for (const std::string& one : variant.set)
      out += fmt::format(" <code>{}</code>", escape_html(one));
    out += "</p>\n";
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
  out.settings = settings(recipe.training);
  out.findings_title = "What the figures say";
  out.note =
      "± is the standard error over seeds; gaps are paired by seed and count as a difference "
      "beyond "
      "two standard errors. Time: median step against the baseline's, as the jobs ran, side by "
      "side. Seconds of training are those of the steps, without reading held-out samples.";
  out.plots = {
      {"eval_cer", "held-out character error rate", false, false},
      {"eval_loss", "held-out loss", false, false},
      {"loss", "training loss", false, true},
      {"eval_cer", "held-out character error rate over time", false, false, "train_seconds"},
      {"eval_loss", "held-out loss over time", false, false, "train_seconds"}};
  for (const AblationTable& table : tables) {
    const auto lengths = length_table(table);
    if (lengths.empty()) continue;
    out.more += "<h2>Character error rate by the length of the text</h2>\n" +
                html_table(lengths.front(), {lengths.begin() + 1, lengths.end()});
    if (differ_in_tokens(table)) out.more += compression_plot(table) + paper_compression();
  }
  return out;
}

}  // namespace lectern
