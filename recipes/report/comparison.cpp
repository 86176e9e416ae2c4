#include "recipes/report/comparison.h"

#include "core/error.h"
#include "core/io/file.h"
#include "recipes/report/sections.h"
#include "recipes/report/template.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <map>
#include <numeric>

namespace lectern {
namespace {

using nlohmann::json;

constexpr const char* kLevels[] = {"word", "line", "region", "page"};
constexpr std::size_t kPiecesShown = 12, kPagesShown = 2;  // worst, and as many best

std::string field(const json& sample, const char* name, const std::filesystem::path& path) {
  const auto at = sample.find(name);
  if (at == sample.end() || !at->is_string())
    fail<IoError>(fmt::format("{}: {} must be a string in each sample", path.string(), name));
  return at->get<std::string>();
}

std::string text_of(const std::filesystem::path& path) {
  return std::filesystem::exists(path) ? read_file(path) : "";
}

std::vector<ComparedSample> read_level(const std::filesystem::path& folder) {
  const auto path = folder / "samples.json";
  if (!std::filesystem::is_directory(folder / "tesseract"))
    fail<IoError>(
        fmt::format("{}: must have tesseract's texts (scripts/eval-beside-tesseract.sh "
                    "writes them), got none",
                    (folder / "tesseract").string()));
  std::vector<ComparedSample> out;
  const json samples = parse_json(read_file(path), path.string());
  for (const json& sample : samples) {
    ComparedSample one;
    one.stem = field(sample, "stem", path);
    one.document = field(sample, "document", path);
    const std::string name = field(sample, "name", path);
    one.note = name.substr(0, name.find('|'));
    one.truth = field(sample, "truth", path);
    one.read = field(sample, "read", path);
    one.other = text_of(folder / "tesseract" / (one.stem + ".txt"));
    one.picture = folder / "images" / (one.stem + ".png");
    out.push_back(std::move(one));
  }
  return out;
}

PageScore score_of(const std::string& read, const std::string& truth) {
  return score_page(normalize_text(read), normalize_text(truth));
}

std::vector<ComparedScores> scores_of(const std::string& level,
                                      const std::vector<ComparedSample>& samples) {
  struct Pages {
    std::vector<PageScore> ours, other;
  };
  std::map<std::string, Pages> documents;
  Pages all;
  for (const ComparedSample& sample : samples) {
    const PageScore ours = score_of(sample.read, sample.truth);
    const PageScore other = score_of(sample.other, sample.truth);
    for (Pages* pages : {&documents[sample.document], &all}) {
      pages->ours.push_back(ours);
      pages->other.push_back(other);
    }
  }
  std::vector<ComparedScores> out;
  for (auto& [document, pages] : documents)
    out.push_back({level, document, summarize(pages.ours), summarize(pages.other)});
  out.push_back({level, "", summarize(all.ours), summarize(all.other)});
  return out;
}

nlohmann::ordered_json json_of(const Scores& scores) {
  return {{"cer", scores.cer},
          {"edit_distance", scores.edit_distance},
          {"repetition_rate", scores.repetition_rate},
          {"exact", scores.exact}};
}

const std::vector<std::string> kHeader = {"level",         "document", "pieces", "lectern: CER",
                                          "edit distance", "loops",    "exact",  "tesseract: CER",
                                          "edit distance", "loops",    "exact"};

std::vector<std::string> cells(const ComparedScores& row) {
  std::vector<std::string> out = {row.level, row.document.empty() ? "all" : row.document,
                                  std::to_string(row.ours.pages.size())};
  for (const Scores* scores : {&row.ours, &row.other}) {
    out.push_back(report::percent(scores->cer));
    out.push_back(fmt::format("{:.3f}", scores->edit_distance));
    out.push_back(report::percent(scores->repetition_rate));
    out.push_back(std::to_string(scores->exact));
  }
  return out;
}

json rows(const Comparison& comparison) {
  json out = json::array();
  for (const auto& level : comparison.scores)
    for (const ComparedScores& row : level)
      out.push_back({{"is_total", row.document.empty()}, {"cells", cells(row)}});
  return out;
}

/// Indices from what lectern read worst to best; of those read alike the longer is the better one.
std::vector<std::size_t> worst_first(const std::vector<ComparedSample>& samples,
                                     const Scores& scores) {
  std::vector<std::size_t> out(samples.size());
  std::iota(out.begin(), out.end(), std::size_t{0});
  std::stable_sort(out.begin(), out.end(), [&](std::size_t a, std::size_t b) {
    const PageScore &first = scores.pages[a], &second = scores.pages[b];
    if (first.edit_distance != second.edit_distance)
      return first.edit_distance > second.edit_distance;
    return first.truth_length < second.truth_length;
  });
  return out;
}

json level_json(const std::string& level, const std::vector<ComparedSample>& samples,
                const Scores& scores) {
  const bool pages = level == "page";
  const auto order = worst_first(samples, scores);
  const std::size_t shown = std::min((order.size() + 1) / 2, pages ? kPagesShown : kPiecesShown);
  std::vector<ReportSample> worst, best;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i >= shown && i + shown < order.size()) continue;
    const ComparedSample& sample = samples[order[i]];
    ReportSample card{sample.picture, normalize_text(sample.truth), normalize_text(sample.read),
                      sample.note, pages};
    if (pages) {
      card.truth = sample.truth;
      card.read = sample.read;
    }
    card.other_name = "tesseract";
    card.other = pages ? sample.other : normalize_text(sample.other);
    (i < shown ? worst : best).push_back(std::move(card));
  }
  std::reverse(best.begin(), best.end());
  return {{"level", level}, {"worst", report::cards(worst)}, {"best", report::cards(best)}};
}

std::string lead(const Comparison& comparison) {
  std::string out, separator;
  for (const auto& level : comparison.scores) {
    const ComparedScores& all = level.back();
    out += fmt::format("{}{}s: {:.1f} % of the characters wrong ({:.1f} %)", separator, all.level,
                       100 * all.ours.cer, 100 * all.other.cer);
    separator = "; ";
  }
  return fmt::format("The same pictures, read by {} and by {}. {}; tesseract's in parentheses.",
                     comparison.model, comparison.tesseract, out);
}

constexpr const char* kNote =
    "Characters wrong (CER): edits / true characters. Edit distance: mean of edits / longer "
    "length. Loops: readings that end in a repetition. Both sides are scored after NFKC and with "
    "runs of white space as one space. Words, lines and regions are the crops that lectern's model "
    "sees; tesseract gets them enlarged and without most of their white border, as it expects "
    "them.";

}  // namespace

Comparison read_comparison(const std::filesystem::path& folder) {
  Comparison out;
  out.folder = folder;
  const auto line_of = [&](const char* file, const char* otherwise) {
    const std::string text = normalize_text(text_of(folder / file));
    return text.empty() ? std::string(otherwise) : text;
  };
  out.model = line_of("model.txt", "lectern");
  out.tesseract = line_of("tesseract.txt", "tesseract");
  for (const char* level : kLevels) {
    if (!std::filesystem::exists(folder / level / "samples.json")) continue;
    out.levels.emplace_back(level);
    out.samples.push_back(read_level(folder / level));
    out.scores.push_back(scores_of(level, out.samples.back()));
  }
  if (out.levels.empty())
    fail<IoError>(
        fmt::format("{}: must have word/, line/, region/ or page/ with samples.json, got "
                    "none",
                    folder.string()));
  return out;
}

nlohmann::ordered_json comparison_json(const Comparison& comparison) {
  auto levels = nlohmann::ordered_json::array();
  for (const auto& level : comparison.scores) {
    nlohmann::ordered_json entry = {{"level", level.back().level},
                                    {"pieces", level.back().ours.pages.size()},
                                    {"lectern", json_of(level.back().ours)},
                                    {"tesseract", json_of(level.back().other)},
                                    {"documents", nlohmann::ordered_json::array()}};
    for (const ComparedScores& row : level)
      if (!row.document.empty())
        entry["documents"].push_back({{"document", row.document},
                                      {"pieces", row.ours.pages.size()},
                                      {"lectern", json_of(row.ours)},
                                      {"tesseract", json_of(row.other)}});
    levels.push_back(std::move(entry));
  }
  return {{"model", comparison.model}, {"tesseract", comparison.tesseract}, {"levels", levels}};
}

std::string comparison_markdown(const Comparison& comparison) {
  std::string out;
  const auto line = [&](const std::vector<std::string>& row) {
    for (const std::string& cell : row) out += "| " + cell + " ";
    out += "|\n";
  };
  line(kHeader);
  line(std::vector<std::string>(kHeader.size(), "---"));
  for (const auto& level : comparison.scores)
    for (const ComparedScores& row : level) line(cells(row));
  return out + fmt::format("\n{}. {}\n", comparison.tesseract, kNote);
}

std::string comparison_html(const Comparison& comparison) {
  json levels = json::array();
  for (std::size_t i = 0; i < comparison.levels.size(); ++i)
    levels.push_back(
        level_json(comparison.levels[i], comparison.samples[i], comparison.scores[i].back().ours));
  return report::render_template("comparison.html", {{"title", "lectern beside tesseract"},
                                                     {"command", "report"},
                                                     {"lead", lead(comparison)},
                                                     {"head", kHeader},
                                                     {"rows", rows(comparison)},
                                                     {"note", kNote},
                                                     {"levels", std::move(levels)}});
}

}  // namespace lectern
