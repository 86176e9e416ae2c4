#include "recipes/report/evaluation.h"

#include "recipes/report/plot.h"
#include "recipes/report/sections.h"
#include "recipes/report/style.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace lectern {
namespace {

constexpr std::size_t kShown = 24, kPagesShown = 3;  // worst, and as many best

std::string percent(double fraction) { return fmt::format("{:.1f} %", 100 * fraction); }

std::string row(const std::string& name, const Scores& scores, bool is_total) {
  return fmt::format(
      "<tr{}><td>{}</td><td>{}</td><td>{}</td><td>{:.3f}</td><td>{}</td><td>{}</td></tr>\n",
      is_total ? " class=\"best\"" : "", escape_html(name), scores.pages.size(),
      percent(scores.cer), scores.edit_distance, percent(scores.repetition_rate), scores.exact);
}

std::string document_table(const EvaluationResult& result) {
  std::string out =
      "<h2>By document</h2>\n<p class=\"note\">Characters wrong: edits / true characters. Edit "
      "distance: mean of edits / longer length. Loops: readings that end in a repetition.</p>\n"
      "<div class=\"card scroll\"><table><tr><th>document</th><th>pieces</th>"
      "<th>characters<br>wrong</th><th>edit<br>distance</th><th>loops</th><th>exact</th></tr>\n";
  for (const auto& [document, scores] : scores_by_document(result))
    out += row(document, scores, false);
  return out + row("all", result.scores, true) + "</table></div>\n";
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

/// "jags_user_manual/0007" of a sample's key.
std::string page_of(const std::string& key) { return key.substr(0, key.find('|')); }

}  // namespace

std::string render_evaluation(const EvaluationResult& result, const std::string& level,
                              const std::string& model, const std::filesystem::path& images) {
  const bool pages = level == "page";
  const std::vector<std::size_t> order = worst_first(result);
  const std::size_t shown = std::min((order.size() + 1) / 2, pages ? kPagesShown : kShown);
  std::vector<ReportSample> worst, best;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i >= shown && i + shown < order.size()) continue;
    const ReadSample& sample = result.samples[order[i]];
    (i < shown ? worst : best)
        .push_back({images / fmt::format("{:05}.png", order[i]), sample.truth, sample.read,
                    page_of(sample.name), pages});
  }
  std::reverse(best.begin(), best.end());
  const std::string title = fmt::format("Held-out {}s", level);
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{0}</title>\n<style>{1}</style>\n</head>\n<body>\n<main>\n<h1>{0}</h1>\n"
      "<p class=\"lead\">{2} {3}s of documents that training never saw, read by {4}: {5} of the "
      "characters wrong, {6} read without an error.</p>\n",
      escape_html(title), kReportStyle, result.samples.size(), escape_html(level),
      escape_html(model), percent(result.scores.cer), result.scores.exact);
  out += document_table(result);
  out +=
      "<p class=\"note\">Below, <mark>missed</mark> and <mark class=\"bad\">wrong</mark> "
      "characters are marked.</p>\n";
  out += "<h2>Worst</h2>\n" + report::cards(worst, pages);
  if (!best.empty()) out += "<h2>Best</h2>\n" + report::cards(best, pages);
  return out +
         "<footer>Written by <code>lectern eval</code>. This file is complete in itself: it loads "
         "nothing.</footer>\n</main>\n</body>\n</html>\n";
}

}  // namespace lectern
