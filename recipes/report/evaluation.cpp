#include "recipes/report/evaluation.h"

#include "recipes/report/sections.h"
#include "recipes/report/template.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <numeric>
#include <vector>

namespace lectern {
namespace {

using nlohmann::json;
using report::percent;
using report::render_template;

constexpr std::size_t kSamplesShown = 24, kWholePagesShown = 3;  // worst, and as many best

json row(const std::string& name, const Scores& scores, bool is_total) {
  return {{"is_total", is_total},
          {"cells",
           {name, std::to_string(scores.pages.size()), percent(scores.cer),
            fmt::format("{:.3f}", scores.edit_distance), percent(scores.repetition_rate),
            std::to_string(scores.exact)}}};
}

json rows(const EvaluationResult& result) {
  json out = json::array();
  for (const auto& [document, scores] : scores_by_document(result))
    out.push_back(row(document, scores, false));
  out.push_back(row("all", result.scores, true));
  return out;
}

/// Samples from the worst to the best; of those read alike the longer one is the better one.
std::vector<std::size_t> worst_first(const EvaluationResult& result) {
  std::vector<std::size_t> out(result.samples.size());
  std::iota(out.begin(), out.end(), std::size_t{0});
  std::stable_sort(out.begin(), out.end(), [&](std::size_t a, std::size_t b) {
    const PageScore &first = result.scores.pages[a], &second = result.scores.pages[b];
    if (first.edit_distance != second.edit_distance)
      return first.edit_distance > second.edit_distance;
    return first.truth_length < second.truth_length;
  });
  return out;
}

}  // namespace

std::string render_evaluation(const EvaluationResult& result, const EvaluationSource& source,
                              const std::filesystem::path& images) {
  const bool pages = source.level == "page";
  const std::vector<std::size_t> order = worst_first(result);
  const std::size_t shown =
      std::min((order.size() + 1) / 2, pages ? kWholePagesShown : kSamplesShown);
  std::vector<ReportSample> worst, best;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i >= shown && i + shown < order.size()) continue;
    const ReadSample& sample = result.samples[order[i]];
    (i < shown ? worst : best)
        .push_back({images / fmt::format("{:05}.png", order[i]), sample.truth, sample.read,
                    page_of(sample.name), pages});
  }
  std::reverse(best.begin(), best.end());
  std::string level = source.level;  // as a heading begins
  if (!level.empty() && level[0] >= 'a' && level[0] <= 'z')
    level[0] = static_cast<char>(level[0] - 'a' + 'A');
  return render_template("evaluation.html",
                         {{"title", fmt::format("{}s, as they were read", level)},
                          {"command", "eval"},
                          {"count", result.samples.size()},
                          {"level", source.level},
                          {"shards", source.shards},
                          {"was_trained_on", source.was_trained_on},
                          {"model", source.model},
                          {"cer", percent(result.scores.cer)},
                          {"exact", result.scores.exact},
                          {"rows", rows(result)},
                          {"worst", report::cards(worst)},
                          {"best", report::cards(best)}});
}

}  // namespace lectern
