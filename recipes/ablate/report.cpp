#include "recipes/ablate/report.h"

#include "recipes/ablate/report_parts.h"
#include "recipes/log/metrics.h"
#include "recipes/report/plot.h"
#include "recipes/report/template.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

namespace lectern {
namespace {

using nlohmann::json;
using Results = std::map<std::int64_t, json>;  // by seed

double number(const json& result, const char* field) {
  const auto at = result.find(field);
  return at != result.end() && at->is_number() ? at->get<double>() : NAN;
}

/// Values of one field over seeds, without those that have none.
std::vector<double> values(const Results& results, const char* field) {
  std::vector<double> out;
  for (const auto& [seed, result] : results)
    if (const double value = number(result, field); std::isfinite(value)) out.push_back(value);
  return out;
}

/// f(value, value of the baseline) over the seeds that both have.
template <typename F>
std::vector<double> against(const Results& results, const Results& baseline, const char* field,
                            F&& f) {
  std::vector<double> out;
  for (const auto& [seed, result] : results) {
    const auto other = baseline.find(seed);
    if (other == baseline.end()) continue;
    const double a = number(result, field), b = number(other->second, field);
    if (std::isfinite(a) && std::isfinite(b)) out.push_back(f(a, b));
  }
  return out;
}

/// Groups of all seeds; a length that only some seeds have is averaged over these.
std::vector<LengthGroup> lengths_of(const Results& results) {
  struct Sums {
    std::vector<double> characters, tokens, cer;
  };
  std::map<std::int64_t, Sums> found;
  for (const auto& [seed, result] : results) {
    if (!result.contains("lengths")) continue;
    for (const json& group : result["lengths"]) {
      Sums& sums = found[group.value("from", std::int64_t{0})];
      sums.characters.push_back(number(group, "characters"));
      sums.tokens.push_back(number(group, "text_tokens"));
      sums.cer.push_back(number(group, "cer"));
    }
  }
  std::vector<LengthGroup> out;
  for (const auto& [from, sums] : found)
    out.push_back({from, mean_with_error(sums.characters).mean, mean_with_error(sums.tokens).mean,
                   mean_with_error(sums.cer)});
  return out;
}

AblationRow row_of(const std::string& variant, const std::string& label, const Results& results,
                   const Results& baseline) {
  AblationRow row;
  row.variant = variant;
  row.label = label;
  row.finished = results.size();
  for (const auto& [seed, result] : results)
    if (result.contains("diverged") && result["diverged"] == true) ++row.diverged;
  const auto difference = [](double a, double b) { return a - b; };
  const auto overhead = [](double a, double b) { return b > 0 ? a / b - 1 : NAN; };
  row.loss = mean_with_error(values(results, "loss"));
  row.loss_gap = mean_with_error(against(results, baseline, "loss", difference));
  row.gain_forward = mean_with_error(values(results, "gain_forward"));
  row.gain_backward = mean_with_error(values(results, "gain_backward"));
  row.deviation = mean_with_error(values(results, "deviation"));
  row.time_overhead = mean_with_error(against(results, baseline, "seconds_per_step", overhead));
  row.memory_overhead = mean_with_error(against(results, baseline, "peak_bytes", overhead));
  row.cer = mean_with_error(values(results, "cer"));
  row.cer_gap = mean_with_error(against(results, baseline, "cer", difference));
  row.exact = mean_with_error(values(results, "exact"));
  row.train_seconds = mean_with_error(values(results, "train_seconds"));
  row.visual_tokens = mean_with_error(values(results, "visual_tokens")).mean;
  row.decoder_tokens = mean_with_error(values(results, "decoder_tokens")).mean;
  row.lengths = lengths_of(results);
  std::vector<double> ratios;
  for (const auto& [seed, result] : results)
    if (const double median = number(result, "grad_norm_median"); median > 0)
      ratios.push_back(number(result, "grad_norm_max") / median);
  row.grad_norm_ratio = mean_with_error(ratios);
  return row;
}

std::string title_of(const AblationJob& job) {
  if (job.task == "text") return fmt::format("text, {} layers", job.depth);
  return job.task == "ocr" ? "OCR" : "Held-out figures";
}

bool is_training(const std::vector<AblationTable>& tables) {
  return !tables.empty() && tables.front().task == "training";
}

std::vector<std::string> header(const AblationTable& table) {
  return table.task == "training" ? training_header(table) : residual_header(table);
}

std::vector<std::string> cells(const AblationTable& table, const AblationRow& row) {
  return table.task == "training" ? training_cells(table, row) : residual_cells(table, row);
}

AblationWords words_of(const AblationRecipe& recipe, const std::vector<AblationTable>& tables) {
  return recipe.training.enabled ? training_words(recipe, tables) : residual_words(recipe);
}

/// A field over another, means over seeds; steps that not all seeds have are left out.
PlotSeries mean_curve(const AblationRecipe& recipe, const AblationTable& table,
                      const AblationRow& row, const CurvePlot& plot) {
  std::map<double, std::vector<std::pair<double, double>>> points;  // step -> (x, y)
  std::size_t runs = 0;
  const auto is_number = [](const MetricFields& record, const char* field) {
    return record.contains(field) && record[field].is_number();
  };
  for (const AblationJob& job : ablation_jobs(recipe)) {
    if (job.task != table.task || job.depth != table.depth || job.variant != row.variant) continue;
    const auto path = recipe.out / "jobs" / job.id / "metrics.jsonl";
    if (!std::filesystem::exists(recipe.out / "jobs" / job.id / "result.json")) continue;
    ++runs;
    for (const MetricFields& record : read_metrics(path))
      if (is_number(record, plot.field) && is_number(record, plot.x))
        points[record["step"].get<double>()].emplace_back(record[plot.x].get<double>(),
                                                          record[plot.field].get<double>());
  }
  PlotSeries out;  // no label: one legend serves all plots of a table
  for (const auto& [step, found] : points) {
    if (found.size() != runs) continue;
    double x = 0, y = 0;
    for (const auto& [at, value] : found) {
      x += at / static_cast<double>(runs);
      y += value / static_cast<double>(runs);
    }
    out.x.push_back(x);
    out.y.push_back(y);
  }
  return out;
}

json plots_json(const AblationRecipe& recipe, const AblationTable& table,
                const std::vector<CurvePlot>& plots) {
  json out = json::array();
  for (const CurvePlot& plot : plots) {
    PlotArgs args;
    args.title = plot.title;
    args.x_label = std::string(plot.x) == "step" ? "step" : "seconds of training";
    args.y_label = plot.field;
    args.log_y = plot.log;
    for (std::size_t i = 0; i < table.rows.size(); ++i) {
      PlotSeries series = mean_curve(recipe, table, table.rows[i], plot);
      if (series.x.empty()) continue;
      if (plot.smooth) series.y = centred_mean(series.y, static_cast<double>(series.y.size()) / 40);
      series.dots = !plot.smooth && series.x.size() < 40;
      series.color = static_cast<int>(i);
      args.series.push_back(std::move(series));
    }
    if (!args.series.empty()) out.push_back(line_plot(args));
  }
  return out;
}

json table_json(const AblationRecipe& recipe, const AblationTable& table,
                const std::vector<CurvePlot>& plots) {
  json rows = json::array(), legend = json::array();
  for (const AblationRow& row : table.rows) {
    legend.push_back({{"color", rows.size()}, {"label", row.label}});
    rows.push_back({{"cells", cells(table, row)}});
  }
  return {{"title", table.title},
          {"head", header(table)},
          {"rows", std::move(rows)},
          {"legend", std::move(legend)},
          {"plots", plots_json(recipe, table, plots)}};
}

}  // namespace

std::string with_error(const MeanWithError& spread, int digits, bool is_gap) {
  if (spread.count == 0) return "–";
  const std::string mean = is_gap ? fmt::format("{:+.{}f}", spread.mean, digits)
                                  : fmt::format("{:.{}f}", spread.mean, digits);
  return spread.count < 2 ? mean : fmt::format("{} ± {:.{}f}", mean, spread.error, digits);
}

std::string percent(const MeanWithError& spread) {
  return spread.count == 0 ? "–" : fmt::format("{:+.0f} %", 100 * spread.mean);
}

const AblationRow* find_row(const AblationTable& table, const std::string& variant) {
  for (const AblationRow& row : table.rows)
    if (row.variant == variant && row.loss.count > 0) return &row;
  return nullptr;
}

std::string judged(const MeanWithError& gap, const std::string& other) {
  if (gap.count < 2) return "not judged (one seed)";
  if (gap.mean + 2 * gap.error < 0) return "lower";
  if (gap.mean - 2 * gap.error > 0) return "higher";
  return "not told apart from " + other;
}

std::vector<AblationTable> ablation_tables(const AblationRecipe& recipe,
                                           const std::vector<json>& results) {
  std::map<std::string, std::map<std::string, Results>> found;  // table -> variant -> seed
  std::vector<AblationTable> out;
  std::map<std::string, std::vector<std::string>> variants;
  for (const AblationJob& job : ablation_jobs(recipe)) {
    if (job.task == "start") continue;
    const std::string key = fmt::format("{}-{}", job.task, job.depth);
    if (!variants.contains(key))
      out.push_back({job.task, title_of(job), baseline_of(recipe, job.task), job.depth, {}});
    auto& names = variants[key];
    if (std::find(names.begin(), names.end(), job.variant) == names.end())
      names.push_back(job.variant);
    const std::string settings = job_settings(recipe, job);
    for (const json& result : results)
      if (result.value("id", "") == job.id && result.value("settings", "") == settings)
        found[key][job.variant][job.seed] = result;
  }
  for (AblationTable& table : out) {
    const std::string key = fmt::format("{}-{}", table.task, table.depth);
    for (const std::string& variant : variants[key])
      if (!found[key][variant].empty())
        table.rows.push_back(row_of(variant, variant_label(recipe, table.task, variant),
                                    found[key][variant], found[key][table.baseline]));
  }
  std::erase_if(out, [](const AblationTable& table) { return table.rows.empty(); });
  return out;
}

std::vector<std::string> ablation_findings(const std::vector<AblationTable>& tables) {
  return is_training(tables) ? training_findings(tables) : residual_findings(tables);
}

std::string ablation_markdown(const AblationRecipe& recipe,
                              const std::vector<AblationTable>& tables) {
  std::string out = fmt::format(
      "# {} ({})\n", recipe.training.enabled ? recipe.training.title : "Residual ablation",
      recipe.name);
  const auto line = [&](const std::vector<std::string>& row) {
    for (const std::string& cell : row) out += "| " + cell + " ";
    out += "|\n";
  };
  const auto heading = [&](const std::vector<std::string>& head) {
    line(head);
    line(std::vector<std::string>(head.size(), "---"));
  };
  for (const AblationTable& table : tables) {
    out += fmt::format("\n## {}\n\n", table.title);
    heading(header(table));
    for (const AblationRow& row : table.rows) line(cells(table, row));
    const auto lengths = length_table(table);
    if (lengths.empty()) continue;
    out += "\n## Character error rate by the length of the text\n\n";
    heading(lengths.front());
    for (std::size_t i = 1; i < lengths.size(); ++i) line(lengths[i]);
  }
  out += "\n## Findings\n\n";
  for (const std::string& finding : ablation_findings(tables)) out += "* " + finding + "\n";
  return out;
}

std::string ablation_html(const AblationRecipe& recipe, const std::vector<AblationTable>& tables) {
  const AblationWords words = words_of(recipe, tables);
  json values = words.values;
  values["ablation"] = true;
  values["title"] = words.title;
  values["command"] = "ablate";
  values["lead"] = words.lead;
  values["findings"] = ablation_findings(tables);
  values["tables"] = json::array();
  for (const AblationTable& table : tables)
    values["tables"].push_back(table_json(recipe, table, words.plots));
  return report::render_template("ablation.html", values);
}

}  // namespace lectern
