#include "recipes/report/report.h"

#include "recipes/evaluate/score.h"
#include "recipes/log/progress.h"
#include "recipes/report/plot.h"
#include "recipes/report/sections.h"
#include "recipes/report/template.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

namespace lectern::report {
namespace {

using nlohmann::json;

std::string stage_title(const ReportStage& stage) {
  if (stage.stage == 0) return stage.name.empty() ? "Training" : stage.name;
  return fmt::format("Stage {}{}{}", stage.stage, stage.name.empty() ? "" : ": ", stage.name);
}

int color_of(const ReportStage& stage) {
  return stage.stage > 0 ? static_cast<int>((stage.stage - 1) % 3) : 0;
}

std::string bytes_text(std::int64_t bytes) {
  return bytes > 0 ? format_count(static_cast<double>(bytes)) + "B" : "";
}

/// The mean of the first or last twentieth of a curve (at least one point): single steps jump.
double end_value(const Curve& curve, bool last) {
  const std::size_t count = std::max<std::size_t>(1, curve.value.size() / 20);
  double sum = 0;
  for (std::size_t i = 0; i < count; ++i) sum += curve.value[last ? curve.value.size() - 1 - i : i];
  return sum / static_cast<double>(count);
}

PlotSeries series(const Curve& curve, int color, bool smooth) {
  PlotSeries out;
  out.x = curve.step;
  out.y = curve.value;
  out.color = color;
  out.smooth = smooth;
  return out;
}

/// Nothing without a plot.
void add_figure(json& figures, const std::string& plot, const std::string& caption) {
  if (!plot.empty()) figures.push_back({{"plot", plot}, {"caption", caption}});
}

/// One scale for the losses of all stages, so that the panels can be compared.
struct LossScale {
  double low = HUGE_VAL, high = -HUGE_VAL;
  bool log() const { return low > 0 && high / low > 6; }
};

LossScale loss_scale(const std::vector<ReportStage>& stages) {
  LossScale out;
  for (const ReportStage& stage : stages)
    for (const double loss : stage.loss.value)
      if (std::isfinite(loss)) {
        out.low = std::min(out.low, loss);
        out.high = std::max(out.high, loss);
      }
  return out;
}

std::string loss_plot(const ReportStage& stage, const LossScale& scale) {
  PlotArgs args;
  args.title = stage_title(stage);
  args.x_label = "step";
  args.y_label = "loss";
  args.log_y = scale.log();
  args.y_min = args.log_y ? scale.low / 1.1 : 0;
  args.y_max = scale.high * (args.log_y ? 1.1 : 1.03);
  if (!(args.y_max > args.y_min)) args.y_min = args.y_max = 0;
  args.series.push_back(series(stage.loss, color_of(stage), true));
  return line_plot(args);
}

/// Steps of all stages one after another on one axis.
std::string joined_plot(const ReportData& data, Curve ReportStage::*curve, PlotArgs args,
                        bool smooth) {
  double offset = 0;
  for (const ReportStage& stage : data.stages) {
    PlotSeries each = series(stage.*curve, color_of(stage), smooth);
    for (double& step : each.x) step += offset;
    offset += static_cast<double>(stage.steps);
    if (each.x.empty()) continue;
    if (data.stages.size() > 1) each.label = std::to_string(stage.stage);
    each.dots = !smooth;
    args.series.push_back(std::move(each));
  }
  return args.series.empty() ? "" : line_plot(args);
}

json pairs_json(const std::vector<std::pair<std::string, std::string>>& pairs) {
  json out = json::array();
  for (const auto& [name, value] : pairs) out.push_back({{"name", name}, {"value", value}});
  return with_heading(std::move(out));
}

json sample_json(const ReportSample& sample) {
  const auto [truth, read] = marked_difference(sample.truth, sample.read);
  json readings = {{{"name", "read"},
                    {"marked", read},
                    {"is_right", sample.read == sample.truth},
                    {"is_other", false}}};
  if (!sample.other_name.empty())
    readings.push_back({{"name", sample.other_name},
                        {"marked", marked_difference(sample.truth, sample.other).second},
                        {"is_right", sample.other == sample.truth},
                        {"is_other", true}});
  const PageScore score = score_page(sample.read, sample.truth);
  return {{"image", image_data(sample.image)},
          {"truth", truth},
          {"readings", std::move(readings)},
          {"note", sample.note},
          {"edit_distance", fmt::format("{:.3f}", score.edit_distance)},
          {"repeats", score.repeats}};
}

json tiles(const ReportData& data) {
  json out = json::array();
  const auto tile = [&](const std::string& value, const char* caption) {
    out.push_back({{"value", value}, {"caption", caption}});
  };
  double seconds = 0, samples = 0;
  const HeldOut* last = nullptr;
  for (const ReportStage& stage : data.stages) {
    seconds += stage.seconds;
    samples += stage.samples;
    if (stage.heldout) last = &*stage.heldout;
  }
  if (last) {
    tile(percent(last->cer), "characters wrong on held-out documents");
    tile(fmt::format("{} of {}", last->exact, last->samples), "held-out samples read exactly");
  }
  if (!data.stages.empty() && !data.stages.front().loss.value.empty() &&
      !data.stages.back().loss.value.empty())
    tile(fmt::format("{:.2f} → {:.2f}", end_value(data.stages.front().loss, false),
                     end_value(data.stages.back().loss, true)),
         "training loss, first → last");
  if (samples > 0) tile(format_count(samples), "samples trained on");
  if (seconds > 0) tile(format_duration(seconds), "training time");
  return with_heading(std::move(out));
}

json figures(const ReportData& data) {
  json out = json::array();
  const LossScale scale = loss_scale(data.stages);
  for (const ReportStage& stage : data.stages)
    add_figure(out, loss_plot(stage, scale), stage.trained);
  const auto plot = [](const char* title, const char* y_label, bool log_y) {
    PlotArgs args;
    args.title = title;
    args.x_label = "step, all stages";
    args.y_label = y_label;
    args.log_y = log_y;
    args.from_zero = !log_y;
    return args;
  };
  add_figure(out,
             joined_plot(data, &ReportStage::heldout_cer,
                         plot("Character error rate, held-out", "", false), false),
             "on documents that training never sees");
  add_figure(out,
             joined_plot(data, &ReportStage::samples_per_second,
                         plot("Throughput", "samples / s", false), true),
             "");
  add_figure(out, joined_plot(data, &ReportStage::grad_norm, plot("Gradient norm", "", true), true),
             "before clipping");
  return out;
}

std::vector<std::string> stage_cells(const ReportStage& stage, bool is_scored) {
  std::vector<std::string> out = {
      stage_title(stage),
      std::to_string(stage.steps),
      stage.samples > 0 ? format_count(stage.samples) : "",
      stage.seconds > 0 ? format_duration(stage.seconds) : "",
      stage.seconds > 0 ? fmt::format("{:.1f}", stage.samples / stage.seconds) : "",
      stage.loss.value.empty() ? "" : fmt::format("{:.3f}", end_value(stage.loss, true))};
  if (const auto& scores = stage.heldout) {
    out.push_back(percent(scores->cer));
    out.push_back(fmt::format("{:.3f}", scores->edit_distance));
    out.push_back(fmt::format("{:.3f}", scores->f1));
    out.push_back(fmt::format("{} / {}", scores->exact, scores->samples));
    out.push_back(percent(scores->repetition_rate));
  } else if (is_scored) {
    out.resize(out.size() + 5);
  }
  return out;
}

json stages(const ReportData& data) {
  if (data.stages.empty()) return false;
  const auto scored = std::count_if(data.stages.begin(), data.stages.end(),
                                    [](const auto& stage) { return stage.heldout.has_value(); });
  json rows = json::array();
  for (const ReportStage& stage : data.stages)
    rows.push_back({{"is_last", &stage == &data.stages.back() && scored > 1},
                    {"cells", stage_cells(stage, scored > 0)}});
  return {{"is_scored", scored > 0}, {"rows", std::move(rows)}, {"figures", figures(data)}};
}

json history(const ReportData& data) {
  if (!data.history) return false;
  PlotArgs args;
  args.title = "Character error rate, held-out";
  args.x_label = "samples";
  args.from_zero = true;
  for (const auto& [name, curve] : data.history->curves)
    args.series.push_back({.label = name,
                           .x = curve.step,
                           .y = curve.value,
                           .color = static_cast<int>(args.series.size())});
  return {{"title", data.history->title}, {"text", data.history->text}, {"plot", line_plot(args)}};
}

json token_budget(const ReportData& data) {
  json out = json::array();
  for (const TokenBudgetRow& row : data.token_budget) {
    const double ratio = row.vision_tokens > 0 ? static_cast<double>(row.text_tokens) /
                                                     static_cast<double>(row.vision_tokens)
                                               : 0.0;
    out.push_back({{"name", row.name},
                   {"width", row.width},
                   {"height", row.height},
                   {"tiles", row.tiles},
                   {"vision_tokens", row.vision_tokens},
                   {"text_tokens", row.text_tokens},
                   {"compression", fmt::format("{:.2f}", ratio)}});
  }
  return with_heading(std::move(out));
}

json exports(const ReportData& data) {
  json out = json::array();
  for (const ReportExport& each : data.exports)
    out.push_back({{"format", each.format},
                   {"path", each.path},
                   {"size", bytes_text(each.bytes)},
                   {"check", each.check}});
  return with_heading(std::move(out));
}

}  // namespace

std::string percent(double fraction) { return fmt::format("{:.1f} %", 100 * fraction); }

json cards(const std::vector<ReportSample>& samples) {
  json words = json::array(), pages = json::array();
  for (const ReportSample& sample : samples)
    (sample.page ? pages : words).push_back(sample_json(sample));
  if (samples.empty()) return false;
  return {{"words", with_heading(std::move(words))}, {"pages", with_heading(std::move(pages))}};
}

}  // namespace lectern::report

namespace lectern {

std::string render_report(const ReportData& data) {
  using namespace report;
  return render_template("report.html", {{"title", data.title},
                                         {"command", "report"},
                                         {"summary", data.summary},
                                         {"tiles", tiles(data)},
                                         {"facts", pairs_json(data.facts)},
                                         {"stages", stages(data)},
                                         {"history", history(data)},
                                         {"samples", cards(data.samples)},
                                         {"token_budget", token_budget(data)},
                                         {"exports", exports(data)},
                                         {"limits", with_heading(data.limits)},
                                         {"next", pairs_json(data.next)}});
}

}  // namespace lectern
