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
#include <string_view>
#include <system_error>
#include <tuple>
#include <utility>

namespace lectern {
namespace {

namespace fs = std::filesystem;

// Distance grows with the product of the lengths: this takes about two minutes.
constexpr double kMostPairs = 4398046511104.0;  // 2^42

using PagesByStem = std::map<std::string, fs::path>;

std::string lower_case(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return text;
}

/// Stem to file of every .md and .txt in `folder`; .md wins where both exist, then small letters.
PagesByStem pages_of(const fs::path& folder, const char* role) {
  std::error_code error;
  std::vector<fs::path> files;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    std::error_code ignored;
    const std::string extension = lower_case(at->path().extension().string());
    if ((extension == ".md" || extension == ".txt") && at->is_regular_file(ignored))
      files.push_back(at->path());
  }
  if (error)
    fail<IoError>(
        fmt::format("{}: cannot list the {} folder: {}", folder.string(), role, error.message()));
  const auto order = [](const fs::path& file) {
    const std::string extension = file.extension().string();
    return std::tuple(lower_case(extension) != ".md", lower_case(extension) != extension, file);
  };
  std::sort(files.begin(), files.end(),
            [&](const fs::path& a, const fs::path& b) { return order(a) < order(b); });
  PagesByStem out;
  for (const fs::path& file : files) out.try_emplace(file.stem().string(), file);
  return out;
}

/// What two names that look the same have in common; names that are not UTF-8 keep their bytes.
std::string composed(const std::string& stem) {
  return is_utf8(stem) ? normalize(stem, NormalForm::nfc) : stem;
}

/// Stem of a truth to the prediction for it; what is left over goes to `extra`.
PagesByStem pair_up(const PagesByStem& truths, const PagesByStem& predictions,
                    std::vector<std::string>& extra) {
  PagesByStem out;
  std::multimap<std::string, fs::path> others;  // by composed stem
  for (const auto& [stem, file] : predictions) {
    if (truths.contains(stem))
      out.emplace(stem, file);
    else
      others.emplace(composed(stem), file);
  }
  for (const auto& [stem, file] : truths) {
    if (out.contains(stem)) continue;
    const auto found = others.find(composed(stem));
    if (found == others.end()) continue;
    out.emplace(stem, found->second);
    others.erase(found);
  }
  for (const auto& [stem, file] : others) extra.push_back(file.filename().string());
  std::sort(extra.begin(), extra.end());
  return out;
}

/// Throws IoError when comparing the texts would take minutes. What they begin and end with in
/// common costs nothing.
void check_effort(const fs::path& file, const std::string& predicted, const std::string& truth) {
  std::string_view a = predicted, b = truth;
  const auto same = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
  a.remove_prefix(static_cast<std::size_t>(same));
  b.remove_prefix(static_cast<std::size_t>(same));
  const auto tail = std::mismatch(a.rbegin(), a.rend(), b.rbegin(), b.rend()).first - a.rbegin();
  a.remove_suffix(static_cast<std::size_t>(tail));
  b.remove_suffix(static_cast<std::size_t>(tail));
  if (static_cast<double>(a.size()) * static_cast<double>(b.size()) > kMostPairs)
    fail<IoError>(fmt::format("{}: is too long to be compared: {} bytes against {} differ",
                              file.string(), a.size(), b.size()));
}

/// One page, read and compared.
PageScore score_files(const std::string& stem, const fs::path& truth, const fs::path* predicted,
                      const ScoreOptions& options) {
  const auto text = [&](const fs::path& file) {
    const std::string read = read_text_file(file);
    return options.normalize ? normalize_text(read) : read;
  };
  const std::string wanted = text(truth);
  std::string read, problem;
  if (predicted != nullptr) {
    try {
      read = text(*predicted);
      check_effort(*predicted, read, wanted);
    } catch (const Error& error) {
      problem = error.what();
      read.clear();
    }
  }
  PageScore out = score_page(read, wanted);
  out.name = stem;
  out.missing = predicted == nullptr;
  out.problem = problem;
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
  const PagesByStem pairs = pair_up(truths, predictions, extra);
  const std::vector<std::pair<std::string, fs::path>> stems(truths.begin(), truths.end());
  std::vector<PageScore> pages(stems.size());
  std::vector<std::string> unreadable(stems.size());  // truths: nothing may be thrown out of a task
  parallel_tasks(static_cast<std::int64_t>(pages.size()), [&](std::int64_t i) {
    const auto index = static_cast<std::size_t>(i);
    const auto& [stem, file] = stems[index];
    const auto found = pairs.find(stem);
    try {
      pages[index] =
          score_files(stem, file, found == pairs.end() ? nullptr : &found->second, options);
    } catch (const std::exception& error) {
      unreadable[index] = error.what();
    }
  });
  for (const std::string& problem : unreadable)
    if (!problem.empty()) throw IoError(problem);
  return summarize(std::move(pages));
}

std::string read_text_file(const fs::path& path) {
  using std::string_view_literals::operator""sv;
  std::string bytes = read_file(path);
  // That of UTF-32, low byte first, begins with that of UTF-16.
  for (const auto& [mark, name] : {std::pair("\xff\xfe\0\0"sv, "UTF-32"),
                                   {"\0\0\xfe\xff"sv, "UTF-32"},
                                   {"\xff\xfe"sv, "UTF-16"},
                                   {"\xfe\xff"sv, "UTF-16"}})
    if (bytes.starts_with(mark))
      fail<IoError>(fmt::format("{}: must be UTF-8, got {}", path.string(), name));
  if (bytes.starts_with("\xef\xbb\xbf"sv)) bytes.erase(0, 3);
  std::string out;
  out.reserve(bytes.size());
  for (std::size_t i = 0; i < bytes.size(); ++i)
    if (bytes[i] != '\r' || i + 1 == bytes.size() || bytes[i + 1] != '\n') out += bytes[i];
  while (out.ends_with('\n') || out.ends_with('\r')) out.pop_back();
  return out;
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
  for (const PageScore& page : scores.pages)
    if (!page.problem.empty())
      out["problems"].push_back({{"name", page.name}, {"problem", page.problem}});
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
