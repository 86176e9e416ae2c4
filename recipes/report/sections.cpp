#include "recipes/report/sections.h"

#include "recipes/evaluate/score.h"
#include "recipes/log/progress.h"
#include "recipes/report/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace lectern::report {
namespace {

std::string stage_title(const ReportStage& stage) {
  if (stage.stage == 0) return stage.name.empty() ? "Training" : stage.name;
  return fmt::format("Stage {}{}{}", stage.stage, stage.name.empty() ? "" : ": ", stage.name);
}

int color_of(const ReportStage& stage) {
  return stage.stage > 0 ? static_cast<int>((stage.stage - 1) % 3) : 0;
}

std::string percent(double fraction) { return fmt::format("{:.1f} %", 100 * fraction); }

std::string bytes_text(std::int64_t bytes) {
  return bytes > 0 ? format_count(static_cast<double>(bytes)) + "B" : "";
}

std::string tile(const std::string& value, const std::string& caption) {
  return fmt::format("<div class=\"card tile\"><b>{}</b><span>{}</span></div>\n",
                     escape_html(value), escape_html(caption));
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

std::string figure(const std::string& plot, const std::string& caption) {
  return fmt::format(
      "<figure class=\"card\">{}{}</figure>\n", plot,
      caption.empty() ? "" : "<figcaption>" + escape_html(caption) + "</figcaption>");
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

std::string loss_panel(const ReportStage& stage, const LossScale& scale) {
  PlotArgs args;
  args.title = stage_title(stage);
  args.x_label = "step";
  args.y_label = "loss";
  args.log_y = scale.log();
  args.y_min = args.log_y ? scale.low / 1.1 : 0;
  args.y_max = scale.high * (args.log_y ? 1.1 : 1.03);
  if (!(args.y_max > args.y_min)) args.y_min = args.y_max = 0;
  args.series.push_back(series(stage.loss, color_of(stage), true));
  return figure(line_plot(args), stage.trained);
}

/// Steps of all stages one after another on one axis.
std::string joined_panel(const ReportData& data, Curve ReportStage::*curve, PlotArgs args,
                         bool smooth, const std::string& caption) {
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
  return args.series.empty() ? "" : figure(line_plot(args), caption);
}

std::string sample_pair(const ReportSample& sample) {
  const auto [truth, read] = marked_difference(sample.truth, sample.read);
  const auto reading = [&](const std::string& name, const std::string& text,
                           const std::string& marked) {
    return fmt::format("<span>{}</span><pre class=\"{}\">{}</pre>", escape_html(name),
                       text == sample.truth ? "ok" : "", marked.empty() ? "&nbsp;" : marked);
  };
  std::string out = fmt::format("<div class=\"pair\"><span>truth</span><pre>{}</pre>{}", truth,
                                reading("read", sample.read, read));
  if (!sample.other_name.empty())
    out += reading(sample.other_name, sample.other,
                   marked_difference(sample.truth, sample.other).second);
  return out + "</div>";
}

std::string page_sample(const ReportSample& sample) {
  const auto [truth, read] = marked_difference(sample.truth, sample.read);
  const PageScore score = score_page(sample.read, sample.truth);
  std::string other;
  if (!sample.other_name.empty())
    other = fmt::format(
        "<div style=\"grid-column:3\"><span class=\"muted\">{}</span><pre>{}</pre></div>",
        escape_html(sample.other_name), marked_difference(sample.truth, sample.other).second);
  return fmt::format(
      "<figure class=\"card page\"><div class=\"shot\"><img alt=\"page\" src=\"{}\"></div>"
      "<div><span class=\"muted\">truth</span><pre>{}</pre></div>"
      "<div><span class=\"muted\">read</span><pre>{}</pre></div>{}"
      "<figcaption>{}{}edit distance {:.3f}{}</figcaption></figure>\n",
      image_data(sample.image), truth, read, other, escape_html(sample.note),
      sample.note.empty() ? "" : " &middot; ", score.edit_distance,
      score.repeats ? " &middot; ends in a loop" : "");
}

}  // namespace

std::string headline(const ReportData& data) {
  std::string out = fmt::format("<h1>{}</h1>\n", escape_html(data.title));
  if (!data.summary.empty())
    out += fmt::format("<p class=\"lead\">{}</p>\n", escape_html(data.summary));
  std::string tiles;
  double seconds = 0, samples = 0;
  const HeldOut* last = nullptr;
  for (const ReportStage& stage : data.stages) {
    seconds += stage.seconds;
    samples += stage.samples;
    if (stage.heldout) last = &*stage.heldout;
  }
  if (last) {
    tiles += tile(percent(last->cer), "characters wrong on held-out documents");
    tiles +=
        tile(fmt::format("{} of {}", last->exact, last->samples), "held-out samples read exactly");
  }
  if (!data.stages.empty() && !data.stages.front().loss.value.empty() &&
      !data.stages.back().loss.value.empty())
    tiles += tile(fmt::format("{:.2f} → {:.2f}", end_value(data.stages.front().loss, false),
                              end_value(data.stages.back().loss, true)),
                  "training loss, first → last");
  if (samples > 0) tiles += tile(format_count(samples), "samples trained on");
  if (seconds > 0) tiles += tile(format_duration(seconds), "training time");
  if (!tiles.empty()) out += "<div class=\"grid tiles\">\n" + tiles + "</div>\n";
  if (!data.facts.empty()) {
    out += "<dl>";
    for (const auto& [name, value] : data.facts)
      out += fmt::format("<dt>{}</dt><dd>{}</dd>", escape_html(name), escape_html(value));
    out += "</dl>\n";
  }
  return out;
}

std::string curves(const ReportData& data) {
  if (data.stages.empty()) return "";
  std::string out =
      "<h2>Training</h2>\n<p class=\"note\">Faint: every step. Strong: running mean. "
      "The panels share one scale.</p>\n<div class=\"grid plots\">\n";
  const LossScale scale = loss_scale(data.stages);
  for (const ReportStage& stage : data.stages) out += loss_panel(stage, scale);
  out += joined_panel(data, &ReportStage::heldout_cer,
                      {.title = "Character error rate, held-out",
                       .x_label = "step, all stages",
                       .y_label = "",
                       .series = {},
                       .log_y = false,
                       .y_min = 0,
                       .y_max = 0,
                       .from_zero = true},
                      false, "on documents that training never sees");
  out += joined_panel(data, &ReportStage::samples_per_second,
                      {.title = "Throughput",
                       .x_label = "step, all stages",
                       .y_label = "samples / s",
                       .series = {},
                       .log_y = false,
                       .y_min = 0,
                       .y_max = 0,
                       .from_zero = true},
                      true, "");
  out += joined_panel(data, &ReportStage::grad_norm,
                      {.title = "Gradient norm",
                       .x_label = "step, all stages",
                       .y_label = "",
                       .series = {},
                       .log_y = true,
                       .y_min = 0,
                       .y_max = 0,
                       .from_zero = false},
                      true, "before clipping");
  return out + "</div>\n";
}

std::string heldout_table(const ReportData& data) {
  const auto scored = std::count_if(data.stages.begin(), data.stages.end(),
                                    [](const auto& stage) { return stage.heldout.has_value(); });
  if (data.stages.empty()) return "";
  std::string out = "<h2>Results by stage</h2>\n";
  out += scored ? "<p class=\"note\">Scores on held-out documents after each stage. Edit distance: "
                  "mean of edits / longer length. Word F1: sets of words. Loops: readings that "
                  "end in a repetition.</p>\n"
                : "";
  out +=
      "<div class=\"card scroll\"><table><tr><th>stage</th><th>steps</th><th>samples</th>"
      "<th>time</th><th>samples / s</th><th>loss</th>";
  if (scored)
    out +=
        "<th>characters<br>wrong</th><th>edit<br>distance</th><th>word F1</th><th>exact</th>"
        "<th>loops</th>";
  out += "</tr>\n";
  for (const ReportStage& stage : data.stages) {
    out += fmt::format(
        "<tr{}><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>",
        &stage == &data.stages.back() && scored > 1 ? " class=\"best\"" : "",
        escape_html(stage_title(stage)), stage.steps,
        stage.samples > 0 ? format_count(stage.samples) : "",
        stage.seconds > 0 ? format_duration(stage.seconds) : "",
        stage.seconds > 0 ? fmt::format("{:.1f}", stage.samples / stage.seconds) : "",
        stage.loss.value.empty() ? "" : fmt::format("{:.3f}", end_value(stage.loss, true)));
    if (stage.heldout)
      out += fmt::format("<td>{}</td><td>{:.3f}</td><td>{:.3f}</td><td>{} / {}</td><td>{}</td>",
                         percent(stage.heldout->cer), stage.heldout->edit_distance,
                         stage.heldout->f1, stage.heldout->exact, stage.heldout->samples,
                         percent(stage.heldout->repetition_rate));
    else if (scored)
      out += "<td></td><td></td><td></td><td></td><td></td>";
    out += "</tr>\n";
  }
  return out + "</table></div>\n";
}

std::string history(const ReportData& data) {
  if (!data.history) return "";
  PlotArgs args;
  args.title = "Character error rate, held-out";
  args.x_label = "samples";
  args.from_zero = true;
  for (const auto& [name, curve] : data.history->curves)
    args.series.push_back({.label = name,
                           .x = curve.step,
                           .y = curve.value,
                           .color = static_cast<int>(args.series.size())});
  return fmt::format(
      "<h2>{}</h2>\n<p>{}</p>\n<figure class=\"card\" style=\"max-width:34rem\">{}</figure>\n",
      escape_html(data.history->title), escape_html(data.history->text), line_plot(args));
}

std::string cards(const std::vector<ReportSample>& samples, bool pages) {
  std::string out;
  for (const ReportSample& sample : samples) {
    if (sample.page != pages) continue;
    if (pages)
      out += page_sample(sample);
    else
      out += fmt::format(
          "<figure class=\"card\"><div class=\"shot\"><img alt=\"sample\" src=\"{}\"></div>{}"
          "<figcaption>{}</figcaption></figure>\n",
          image_data(sample.image), sample_pair(sample), escape_html(sample.note));
  }
  if (out.empty() || pages) return out;
  return "<div class=\"grid words\">\n" + out + "</div>\n";
}

std::string samples(const ReportData& data) {
  if (data.samples.empty()) return "";
  const std::string pages = cards(data.samples, true);
  std::string out =
      "<h2>What it read</h2>\n<p class=\"note\">Pictures from held-out documents, what "
      "stands there and what the model wrote. <mark>Missed</mark> and <mark "
      "class=\"bad\">wrong</mark> characters are marked.</p>\n" +
      cards(data.samples, false);
  if (!pages.empty()) out += "<h2>Whole pages, as they come out</h2>\n" + pages;
  return out;
}

std::string token_budget(const ReportData& data) {
  if (data.token_budget.empty()) return "";
  std::string out =
      "<h2>Token budget</h2>\n<p>A picture of <i>k</i> tiles costs the decoder k &times; 144 + 256 "
      "+ 1 "
      "tokens, however much text stands in it. Compression is text tokens / vision tokens: above 1 "
      "the picture is the shorter form.</p>\n<div class=\"card scroll\"><table><tr>"
      "<th>picture</th><th>pixels</th><th>tiles k</th><th>vision tokens</th><th>text tokens</th>"
      "<th>compression</th></tr>\n";
  for (const TokenBudgetRow& row : data.token_budget)
    out += fmt::format(
        "<tr><td>{}</td><td>{} &times; {}</td><td>{}</td><td>{}</td><td>{}</td>"
        "<td>{:.2f} &times;</td></tr>\n",
        escape_html(row.name), row.width, row.height, row.tiles, row.vision_tokens, row.text_tokens,
        row.vision_tokens > 0
            ? static_cast<double>(row.text_tokens) / static_cast<double>(row.vision_tokens)
            : 0.0);
  return out + "</table></div>\n";
}

std::string exports(const ReportData& data) {
  if (data.exports.empty()) return "";
  std::string out =
      "<h2>Exported</h2>\n<div class=\"card scroll\"><table><tr><th>format</th>"
      "<th class=\"text\">where</th><th>size</th><th class=\"text\">checked</th></tr>\n";
  for (const ReportExport& each : data.exports)
    out += fmt::format(
        "<tr><td>{}</td><td class=\"text\"><code>{}</code></td><td>{}</td>"
        "<td class=\"text\">{}</td></tr>\n",
        escape_html(each.format), escape_html(each.path), bytes_text(each.bytes),
        escape_html(each.check));
  return out + "</table></div>\n";
}

std::string limits(const ReportData& data) {
  if (data.limits.empty()) return "";
  std::string out = "<h2>What this run can and cannot do</h2>\n";
  for (const std::string& paragraph : data.limits) out += "<p>" + escape_html(paragraph) + "</p>\n";
  return out;
}

std::string next_steps(const ReportData& data) {
  if (data.next.empty()) return "";
  std::string out = "<h2>How to go on</h2>\n";
  for (const auto& [what, command] : data.next)
    out += fmt::format("<div>{}</div><pre class=\"command\">{}</pre>\n", escape_html(what),
                       escape_html(command));
  return out;
}

}  // namespace lectern::report
