#include "recipes/ablate_report.h"

#include "recipes/metrics.h"
#include "recipes/report_plot.h"
#include "recipes/report_style.h"

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

/// f(value, value of plain) over the seeds that both have.
template <typename F>
std::vector<double> against(const Results& results, const Results& plain, const char* field,
                            F&& f) {
  std::vector<double> out;
  for (const auto& [seed, result] : results) {
    const auto other = plain.find(seed);
    if (other == plain.end()) continue;
    const double a = number(result, field), b = number(other->second, field);
    if (std::isfinite(a) && std::isfinite(b)) out.push_back(f(a, b));
  }
  return out;
}

AblationRow row_of(const std::string& variant, const Results& results, const Results& plain) {
  AblationRow row;
  row.variant = variant;
  row.label = ablation_variant(variant).label;
  row.finished = results.size();
  for (const auto& [seed, result] : results)
    if (result.contains("diverged") && result["diverged"] == true) ++row.diverged;
  const auto difference = [](double a, double b) { return a - b; };
  const auto overhead = [](double a, double b) { return b > 0 ? a / b - 1 : NAN; };
  row.loss = spread_of(values(results, "loss"));
  row.loss_gap = spread_of(against(results, plain, "loss", difference));
  row.gain_forward = spread_of(values(results, "gain_forward"));
  row.gain_backward = spread_of(values(results, "gain_backward"));
  row.deviation = spread_of(values(results, "deviation"));
  row.time_overhead = spread_of(against(results, plain, "seconds_per_step", overhead));
  row.memory_overhead = spread_of(against(results, plain, "peak_bytes", overhead));
  row.cer = spread_of(values(results, "cer"));
  std::vector<double> ratios;
  for (const auto& [seed, result] : results)
    if (const double median = number(result, "grad_norm_median"); median > 0)
      ratios.push_back(number(result, "grad_norm_max") / median);
  row.grad_norm_ratio = spread_of(ratios);
  return row;
}

/// "1.2345 ± 0.0012"; the sign of a gap is always shown.
std::string with_error(const Spread& spread, int digits, bool is_gap = false) {
  if (spread.count == 0) return "–";
  const std::string mean = is_gap ? fmt::format("{:+.{}f}", spread.mean, digits)
                                  : fmt::format("{:.{}f}", spread.mean, digits);
  return spread.count < 2 ? mean : fmt::format("{} ± {:.{}f}", mean, spread.error, digits);
}

/// Gains run from 1 to thousands.
std::string gain(const Spread& spread) {
  return with_error(spread, spread.mean < 10 ? 3 : spread.mean < 100 ? 1 : 0);
}

std::string percent(const Spread& spread) {
  return spread.count == 0 ? "–" : fmt::format("{:+.0f} %", 100 * spread.mean);
}

const std::vector<std::string> kHeader = {"variant",      "runs (diverged)",        "final loss",
                                          "gap to plain", "gain forward",           "gain backward",
                                          "deviation",    "grad norm max / median", "time",
                                          "memory"};

std::vector<std::string> cells(const AblationRow& row, bool ocr) {
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
  if (ocr) out.push_back(with_error(row.cer, 3));
  return out;
}

std::vector<std::string> header(bool ocr) {
  std::vector<std::string> out = kHeader;
  if (ocr) out.push_back("character error rate");
  return out;
}

// ---- findings

const AblationRow* find(const AblationTable& table, const std::string& variant) {
  for (const AblationRow& row : table.rows)
    if (row.variant == variant && row.loss.count > 0) return &row;
  return nullptr;
}

/// "lower", "higher" or "not told apart": a gap counts beyond two standard errors.
std::string judged(const Spread& gap) {
  if (gap.count < 2) return "not judged (one seed)";
  if (gap.mean + 2 * gap.error < 0) return "lower";
  if (gap.mean - 2 * gap.error > 0) return "higher";
  return "not told apart from plain";
}

std::string gaps_sentence(const std::vector<AblationTable>& tables, const std::string& variant,
                          const std::string& paper) {
  std::string out, separator;
  bool all_lower = true, any_lower = false;
  for (const AblationTable& table : tables) {
    const AblationRow* row = find(table, variant);
    if (row == nullptr || row->loss_gap.count == 0) continue;
    const std::string verdict = judged(row->loss_gap);
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
    if (find(table, a) != nullptr && find(table, b) != nullptr &&
        (out == nullptr || table.depth > out->depth))
      out = &table;
  return out;
}

std::string gain_sentence(const std::vector<AblationTable>& tables) {
  const AblationTable* table = deepest(tables, "hc", "mhc");
  if (table == nullptr) return "";
  const AblationRow &hc = *find(*table, "hc"), &mhc = *find(*table, "mhc");
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
    const AblationRow *hc = find(table, "hc"), *mhc = find(table, "mhc");
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
    const AblationRow *res = find(table, "hc-res"), *pre = find(table, "hc-res-pre"),
                      *full = find(table, "hc");
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

// ---- page

std::string html_table(const std::vector<std::string>& head,
                       const std::vector<std::vector<std::string>>& rows) {
  std::string out = "<div class=\"scroll\"><table><tr>";
  for (const std::string& cell : head) out += "<th>" + escape_html(cell) + "</th>";
  out += "</tr>";
  for (const auto& row : rows) {
    out += "<tr>";
    for (const std::string& cell : row) out += "<td>" + escape_html(cell) + "</td>";
    out += "</tr>";
  }
  return out + "</table></div>\n";
}

/// A field over steps, mean over seeds; steps that not all seeds have are left out.
PlotSeries mean_curve(const AblationRecipe& recipe, const AblationTable& table,
                      const AblationRow& row, const char* field) {
  std::map<double, std::vector<double>> points;
  std::size_t runs = 0;
  for (const AblationJob& job : ablation_jobs(recipe)) {
    if (job.task != table.task || job.depth != table.depth || job.variant != row.variant) continue;
    const auto path = recipe.out / "jobs" / job.id / "metrics.jsonl";
    if (!std::filesystem::exists(recipe.out / "jobs" / job.id / "result.json")) continue;
    ++runs;
    for (const MetricFields& record : read_metrics(path))
      if (record.contains(field) && record[field].is_number())
        points[record["step"].get<double>()].push_back(record[field].get<double>());
  }
  PlotSeries out;  // no label: one legend serves all plots of a table
  for (const auto& [step, found] : points) {
    if (found.size() != runs) continue;
    out.x.push_back(step);
    out.y.push_back(std::accumulate(found.begin(), found.end(), 0.0) /
                    static_cast<double>(found.size()));
  }
  return out;
}

std::string curves(const AblationRecipe& recipe, const AblationTable& table) {
  struct Plot {
    const char *field, *title;
    bool log, smooth;
  };
  std::string out = "<p class=\"note\">Mean over seeds:";
  for (std::size_t i = 0; i < table.rows.size(); ++i)
    out += fmt::format(" <span style=\"color:var(--series-{})\">&#9632;</span>&nbsp;{}", i,
                       escape_html(table.rows[i].label));
  out += "</p>\n<div class=\"grid plots\">";
  for (const Plot& plot :
       {Plot{"loss", "training loss", false, true}, Plot{"grad_norm", "gradient norm", true, true},
        Plot{"gain_forward", "composite gain, forward", true, false},
        Plot{"gain_backward", "composite gain, backward", true, false},
        Plot{"stream_entropy", "entropy of H_res", false, false}}) {
    PlotArgs args;
    args.title = plot.title;
    args.x_label = "step";
    args.y_label = plot.field;
    args.log_y = plot.log;
    for (std::size_t i = 0; i < table.rows.size(); ++i) {
      PlotSeries series = mean_curve(recipe, table, table.rows[i], plot.field);
      if (series.x.empty()) continue;
      if (plot.smooth) series.y = centred_mean(series.y, static_cast<double>(series.y.size()) / 40);
      series.color = static_cast<int>(i);
      args.series.push_back(std::move(series));
    }
    if (!args.series.empty()) out += "<figure class=\"card\">" + line_plot(args) + "</figure>";
  }
  return out + "</div>\n";
}

/// Figures of arXiv 2512.24880 that the tables above stand beside.
std::string paper_tables() {
  return "<h2>The paper's own numbers</h2><p>mHC, arXiv 2512.24880v2. Its models have 3, 9 and 27 "
         "billion parameters and see some hundred billion tokens; ours are smaller by five orders "
         "of "
         "magnitude. Compare shapes, not sizes.</p>" +
         html_table({"loss gap to plain, 27B (Table 1)", "value"},
                    {{"none", "0.0"},
                     {"+ H_res", "-0.022"},
                     {"+ H_pre", "-0.025"},
                     {"+ H_post", "-0.027"},
                     {"mHC, final loss (Figure 5)", "-0.021"}}) +
         html_table(
             {"", "HC", "mHC"},
             {{"composite gain, at most", "about 3000", "about 1.6"},
              {"stability", "loss surge near step 12000 with a jump of the gradient norm", "none"},
              {"time, n = 4", "–", "+6.7 %"}}) +
         html_table({"27B, benchmark", "plain", "HC", "mHC"},
                    {{"BBH", "43.8", "48.9", "51.0"},
                     {"DROP", "47.0", "51.6", "53.9"},
                     {"GSM8K", "46.7", "53.2", "53.8"},
                     {"HellaSwag", "73.7", "74.3", "74.7"},
                     {"MATH", "22.0", "26.4", "26.0"},
                     {"MMLU", "59.0", "63.0", "63.4"},
                     {"PIQA", "78.5", "79.9", "80.5"},
                     {"TriviaQA", "54.3", "56.3", "57.6"}});
}

constexpr const char* kMoreColours =
    ":root{--series-3:#8a4fbf;--series-4:#b8314f;--series-5:#4a8fa8;--series-6:#8b7d2e;--series-7:#"
    "777}"
    "@media (prefers-color-scheme: dark){:root{--series-3:#c59bf0;--series-4:#f08aa0;"
    "--series-5:#8fd0e8;--series-6:#d8c85c;--series-7:#aaa}}";

std::string settings(const AblationRecipe& recipe) {
  std::string out;
  const TextAblation& text = recipe.text;
  if (text.enabled)
    out += fmt::format(
        "<p>Text: next-byte prediction on the files of <code>{}</code> (5 % of each held out), "
        "decoder "
        "layers of width {} with {} heads, dense; {} steps of {} rows of {} bytes, AdamW (0.9, "
        "0.95), "
        "rate {:g} with the paper's step decay, weight decay 0.1, {}. The final loss is measured "
        "on {} "
        "held-out rows, in nats a byte.</p>",
        escape_html(text.folder), text.width, text.heads, text.steps, text.batch, text.sequence,
        text.learning_rate,
        text.clip_norm > 0 ? fmt::format("gradients clipped at {:g}", text.clip_norm)
                           : std::string("no gradient clipping"),
        text.validation_sequences);
  if (recipe.ocr.enabled)
    out += fmt::format(
        "<p>OCR: <code>{}</code>, {} steps; the streams run through LM encoder and decoder. The "
        "final "
        "loss is the mean of the last tenth of the steps; the error rate is on {} held-out "
        "samples.</p>",
        escape_html(recipe.ocr.recipe), recipe.ocr.steps, recipe.ocr.evaluation_samples);
  return out;
}

}  // namespace

Spread spread_of(const std::vector<double>& values) {
  Spread out;
  out.count = values.size();
  if (values.empty()) return out;
  const double n = static_cast<double>(values.size());
  out.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  if (values.size() < 2) return out;
  double squares = 0;
  for (const double value : values) squares += (value - out.mean) * (value - out.mean);
  out.error = std::sqrt(squares / (n - 1) / n);
  return out;
}

std::vector<AblationTable> ablation_tables(const AblationRecipe& recipe,
                                           const std::vector<json>& results) {
  std::map<std::string, std::map<std::string, Results>> found;  // table -> variant -> seed
  std::vector<AblationTable> out;
  std::map<std::string, std::vector<std::string>> variants;
  for (const AblationJob& job : ablation_jobs(recipe)) {
    const std::string key = fmt::format("{}-{}", job.task, job.depth);
    if (!variants.contains(key))
      out.push_back({job.task,
                     job.task == "ocr" ? "OCR" : fmt::format("text, {} layers", job.depth),
                     job.depth,
                     {}});
    auto& names = variants[key];
    if (std::find(names.begin(), names.end(), job.variant) == names.end())
      names.push_back(job.variant);
    for (const json& result : results)
      if (result.value("id", "") == job.id &&
          result.value("settings", "") == job_settings(recipe, job))
        found[key][job.variant][job.seed] = result;
  }
  for (AblationTable& table : out) {
    const std::string key = fmt::format("{}-{}", table.task, table.depth);
    for (const std::string& variant : variants[key])
      if (!found[key][variant].empty())
        table.rows.push_back(row_of(variant, found[key][variant], found[key]["plain"]));
  }
  std::erase_if(out, [](const AblationTable& table) { return table.rows.empty(); });
  return out;
}

std::vector<std::string> ablation_findings(const std::vector<AblationTable>& tables) {
  std::vector<std::string> out = {
      gaps_sentence(tables, "mhc", "ends below plain in the paper (-0.021 at 27B)"),
      gaps_sentence(tables, "hc",
                    "ends below plain in the paper until it becomes unstable (-0.027)"),
      table_one_sentence(tables), gain_sentence(tables), stability_sentence(tables)};
  std::erase(out, "");
  return out;
}

std::string ablation_markdown(const AblationRecipe& recipe,
                              const std::vector<AblationTable>& tables) {
  std::string out = fmt::format("# Residual ablation ({})\n", recipe.name);
  const auto line = [&](const std::vector<std::string>& row) {
    for (const std::string& cell : row) out += "| " + cell + " ";
    out += "|\n";
  };
  for (const AblationTable& table : tables) {
    const bool ocr = table.task == "ocr";
    out += fmt::format("\n## {}\n\n", table.title);
    line(header(ocr));
    line(std::vector<std::string>(header(ocr).size(), "---"));
    for (const AblationRow& row : table.rows) line(cells(row, ocr));
  }
  out += "\n## Findings\n\n";
  for (const std::string& finding : ablation_findings(tables)) out += "* " + finding + "\n";
  return out;
}

std::string ablation_html(const AblationRecipe& recipe, const std::vector<AblationTable>& tables) {
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta "
      "name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\">\n<title>Residual ablation</title>\n"
      "<style>{}{}</style>\n</head>\n<body>\n<main>\n<h1>Residual streams: plain, HC and mHC</h1>\n"
      "<p class=\"lead\">The same training with different residual connections: same batches, same "
      "seeds.</p>\n",
      kReportStyle, kMoreColours);
  out += settings(recipe) + "<h2>What was reproduced, and what was not</h2>\n<ul>";
  for (const std::string& finding : ablation_findings(tables))
    out += "<li>" + escape_html(finding) + "</li>";
  out +=
      "</ul>\n<p class=\"note\">± is the standard error over seeds; gaps are paired by seed and "
      "count as "
      "a difference beyond two standard errors. Gains: largest of a run of the mean over tokens of "
      "the "
      "largest absolute row (forward) or column (backward) sum of the product of all H_res. "
      "Deviation: "
      "largest distance of any H_res from doubly stochastic. Time and memory: against plain, "
      "median step "
      "and peak of tensors, kernels of this CPU at this width; bench/README.md has the cost at "
      "real "
      "width.</p>\n";
  for (const AblationTable& table : tables) {
    const bool ocr = table.task == "ocr";
    out += fmt::format("<h2>{}</h2>\n", escape_html(table.title));
    std::vector<std::vector<std::string>> rows;
    for (const AblationRow& row : table.rows) rows.push_back(cells(row, ocr));
    out += html_table(header(ocr), rows) + curves(recipe, table);
  }
  return out + paper_tables() +
         "<footer>Written by <code>lectern ablate</code>. This file is complete in itself: it "
         "loads "
         "nothing.</footer>\n</main>\n</body>\n</html>\n";
}

}  // namespace lectern
