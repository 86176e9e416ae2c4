#include "recipes/evaluate/score.h"

#include "core/error.h"
#include "core/io/file.h"
#include "core/parallel.h"
#include "data/text/edit_distance.h"
#include "data/text/utf8.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <map>
#include <set>

namespace lectern {
namespace {

namespace fs = std::filesystem;

// Distance grows with the product of the lengths: two files of this size take about half a minute.
constexpr std::uintmax_t kMaxPageBytes = std::uintmax_t{1} << 20;

/// Stem to file of every .md and .txt in `folder`; .md wins where both exist.
std::map<std::string, fs::path> pages_of(const fs::path& folder, const char* role) {
  std::map<std::string, fs::path> out;
  std::error_code error;
  fs::directory_iterator files(folder, error);
  if (error)
    fail<IoError>(
        fmt::format("{}: cannot list the {} folder: {}", folder.string(), role, error.message()));
  for (const auto& entry : files) {
    const std::string extension = entry.path().extension().string();
    if ((extension != ".md" && extension != ".txt") || !entry.is_regular_file(error)) continue;
    fs::path& slot = out[entry.path().stem().string()];
    if (slot.empty() || extension == ".md") slot = entry.path();
  }
  return out;
}

void score_words(std::u32string_view predicted, std::u32string_view truth, PageScore& out) {
  const auto read = words(predicted), wanted = words(truth);
  const std::set<std::u32string> p(read.begin(), read.end()), g(wanted.begin(), wanted.end());
  if (p.empty() && g.empty()) {
    out.precision = out.recall = out.f1 = 1;
    return;
  }
  const auto common = static_cast<double>(
      std::count_if(p.begin(), p.end(), [&](const auto& word) { return g.contains(word); }));
  if (common == 0) return;
  out.precision = common / static_cast<double>(p.size());
  out.recall = common / static_cast<double>(g.size());
  out.f1 = 2 * out.precision * out.recall / (out.precision + out.recall);
}

}  // namespace

PageScore score_page(std::string_view predicted, std::string_view truth) {
  const std::u32string p = code_points(predicted), g = code_points(truth);
  PageScore out;
  out.predicted_length = static_cast<std::int64_t>(p.size());
  out.truth_length = static_cast<std::int64_t>(g.size());
  out.edits = edit_distance(p, g);
  const auto edits = static_cast<double>(out.edits);
  if (!p.empty() || !g.empty())
    out.edit_distance = edits / static_cast<double>(std::max(p.size(), g.size()));
  out.cer = g.empty() ? (p.empty() ? 0.0 : 1.0) : edits / static_cast<double>(g.size());
  score_words(p, g, out);
  out.repeats = looping_tail(p) > 0 && looping_tail(g) == 0;
  return out;
}

Scores summarize(std::vector<PageScore> pages) {
  Scores out;
  std::int64_t edits = 0, longest = 0, truth = 0;
  for (const PageScore& page : pages) {
    edits += page.edits;
    longest += std::max(page.predicted_length, page.truth_length);
    truth += page.truth_length;
    out.edit_distance += page.edit_distance;
    out.cer_mean += page.cer;
    out.precision += page.precision;
    out.recall += page.recall;
    out.f1 += page.f1;
    out.repetition_rate += page.repeats;
    out.exact += page.edits == 0;
    out.missing += page.missing;
  }
  for (double* mean : {&out.edit_distance, &out.cer_mean, &out.precision, &out.recall, &out.f1,
                       &out.repetition_rate})
    if (!pages.empty()) *mean /= static_cast<double>(pages.size());
  if (longest > 0) out.edit_distance_corpus = static_cast<double>(edits) / longest;
  if (truth > 0)
    out.cer = static_cast<double>(edits) / truth;
  else
    out.cer = edits > 0 ? 1.0 : 0.0;
  out.pages = std::move(pages);
  return out;
}

Scores score_folders(const fs::path& predicted, const fs::path& truth, const ScoreOptions& options,
                     std::vector<std::string>& extra) {
  const auto truths = pages_of(truth, "truth");
  const auto predictions = pages_of(predicted, "prediction");
  if (truths.empty())
    fail<IoError>(truth.string() + ": must have pages (.md or .txt files), got none");
  for (const auto& [stem, file] : predictions)
    if (!truths.contains(stem)) extra.push_back(file.filename().string());

  const auto text = [&](const fs::path& file) {
    std::string bytes = read_file(file, kMaxPageBytes);
    return options.normalize ? normalize_text(bytes) : bytes;
  };
  std::vector<std::pair<std::string, std::string>> texts;
  std::vector<PageScore> pages;
  for (const auto& [stem, file] : truths) {
    const auto found = predictions.find(stem);
    const bool missing = found == predictions.end();
    texts.emplace_back(missing ? std::string() : text(found->second), text(file));
    pages.emplace_back();
    pages.back().name = stem;
    pages.back().missing = missing;
  }
  parallel_tasks(static_cast<std::int64_t>(pages.size()), [&](std::int64_t i) {
    const auto index = static_cast<std::size_t>(i);
    PageScore page = score_page(texts[index].first, texts[index].second);
    page.name = pages[index].name;
    page.missing = pages[index].missing;
    pages[index] = std::move(page);
  });
  return summarize(std::move(pages));
}

std::string scores_json(const Scores& scores, bool with_pages) {
  nlohmann::ordered_json out = {{"pages", scores.pages.size()},
                                {"edit_distance", scores.edit_distance},
                                {"edit_distance_corpus", scores.edit_distance_corpus},
                                {"cer", scores.cer},
                                {"cer_mean", scores.cer_mean},
                                {"precision", scores.precision},
                                {"recall", scores.recall},
                                {"f1", scores.f1},
                                {"repetition_rate", scores.repetition_rate},
                                {"exact", scores.exact}};
  out["missing"] = nlohmann::ordered_json::array();
  for (const PageScore& page : scores.pages)
    if (page.missing) out["missing"].push_back(page.name);
  if (with_pages) {
    out["per_page"] = nlohmann::ordered_json::array();
    for (const PageScore& page : scores.pages)
      out["per_page"].push_back({{"name", page.name},
                                 {"edits", page.edits},
                                 {"predicted_length", page.predicted_length},
                                 {"truth_length", page.truth_length},
                                 {"edit_distance", page.edit_distance},
                                 {"cer", page.cer},
                                 {"precision", page.precision},
                                 {"recall", page.recall},
                                 {"f1", page.f1},
                                 {"repeats", page.repeats},
                                 {"missing", page.missing}});
  }
  // File names need not be UTF-8.
  return out.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace lectern
