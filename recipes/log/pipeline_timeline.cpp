#include "recipes/log/pipeline_timeline.h"

#include "distributed/world.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

namespace lectern {
namespace {

constexpr double kLeft = 60, kWidth = 900, kRow = 34, kBox = 26, kTop = 34;

/// 1, 2 or 5 times a power of ten: about eight ticks in `length`.
double tick_step(double length) {
  const double raw = length / 8, power = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (raw <= factor * power) return factor * power;
  return 10 * power;
}

std::string text(double x, double y, const char* anchor, const std::string& what) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     what);
}

}  // namespace

std::vector<PipelineSpan> gather_spans(Communicator& stages,
                                       const std::vector<PipelineSpan>& here) {
  nlohmann::json mine = nlohmann::json::array();
  for (const PipelineSpan& span : here)
    mine.push_back({span.stage, static_cast<int>(span.task.action), span.task.micro_batch,
                    span.task.chunk, span.begin, span.end});
  std::vector<PipelineSpan> out;
  for (const std::string& rank : all_gather_text(stages, mine.dump())) {
    const nlohmann::json theirs = nlohmann::json::parse(rank);
    for (const nlohmann::json& span : theirs)
      out.push_back({span[0].get<std::int64_t>(),
                     {static_cast<PipelineAction>(span[1].get<int>()), span[2].get<std::int64_t>(),
                      span[3].get<std::int64_t>()},
                     span[4].get<double>(),
                     span[5].get<double>()});
  }
  return out;
}

std::string timeline_svg(const std::vector<PipelineSpan>& spans) {
  double last = 1e-9;
  std::int64_t stages = 0, chunks = 0;
  for (const PipelineSpan& span : spans) {
    last = std::max(last, span.end);
    stages = std::max(stages, span.stage + 1);
    chunks = std::max(chunks, span.task.chunk + 1);
  }
  const double scale = kWidth / last, bottom = kTop + kRow * static_cast<double>(stages);
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0f} {:.0f}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      kLeft + kWidth + 20, bottom + 40);
  out += text(kLeft, 20, "start",
              chunks > 1 ? "one step; boxes: micro-batch.chunk; blue forward, green backward"
                         : "one step; boxes: micro-batch; blue forward, green backward");
  for (std::int64_t stage = 0; stage < stages; ++stage) {
    const double y = kTop + kRow * static_cast<double>(stage);
    out += text(kLeft - 8, y + 18, "end", fmt::format("stage {}", stage));
    out += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{}\" fill=\"#f2f2f2\"/>\n",
        kLeft, y, kWidth, kBox);
  }
  for (const PipelineSpan& span : spans) {
    const double x = kLeft + scale * span.begin, width = scale * (span.end - span.begin);
    const double y = kTop + kRow * static_cast<double>(span.stage);
    const bool forward = span.task.action == PipelineAction::forward;
    out += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{}\" fill=\"{}\" "
        "stroke=\"white\"/>\n",
        x, y, std::max(width, 0.5), kBox, forward ? "#8fb8de" : "#8fce9b");
    if (width < 16) continue;
    out += text(x + width / 2, y + 17, "middle",
                chunks > 1 ? fmt::format("{}.{}", span.task.micro_batch, span.task.chunk)
                           : fmt::format("{}", span.task.micro_batch));
  }
  const double step = tick_step(last);
  for (double at = 0; at <= last; at += step)
    out += text(kLeft + scale * at, bottom + 16, "middle", fmt::format("{:.4g}", 1e3 * at));
  out += text(kLeft + kWidth / 2, bottom + 34, "middle", "milliseconds");
  return out + "</svg>\n";
}

}  // namespace lectern
