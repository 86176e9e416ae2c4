// lectern data pages (the others are in data_*.cpp)
#include "core/error.h"
#include "data/pages/builder.h"
#include "recipes/commands/command.h"
#include "recipes/log/progress.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace lectern::commands {
namespace {

using nlohmann::json;

struct PagesArguments {
  std::vector<std::string> pdf;
  PageBuildOptions options;
  std::string out, document_id;
  std::int64_t first = 1, last = 0;
  bool json = false;
};

/// "FILE:20-290"; the whole text is the file when there is one of that name.
PageSource parse_source(const std::string& text, const PagesArguments& arguments) {
  PageSource source{text, arguments.first, arguments.last, arguments.document_id};
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || std::filesystem::exists(text)) return source;
  const char* const end = text.data() + text.size();
  const auto [dash, first_error] = std::from_chars(text.data() + colon + 1, end, source.first);
  if (first_error != std::errc() || dash == end || *dash != '-') return source;
  const auto [rest, last_error] = std::from_chars(dash + 1, end, source.last);
  if (last_error != std::errc() || rest != end) return source;
  source.file = text.substr(0, colon);
  return source;
}

/// One line every two seconds, and one at the end.
class PageProgressLines {
 public:
  void show(const PageProgress& progress) {
    if (progress.done < progress.total && progress.seconds < next_) return;
    next_ = progress.seconds + 2;
    const double speed = static_cast<double>(progress.done) / std::max(progress.seconds, 1e-9);
    const double left = static_cast<double>(progress.total - progress.done) / speed;
    std::fputs(fmt::format("pages {}/{}  {:.1f} pages/s  left {}\n", progress.done, progress.total,
                           speed, format_duration(left))
                   .c_str(),
               stderr);
  }

 private:
  double next_ = 2;
};

std::string summary_text(const PageBuildSummary& summary, const std::string& out) {
  std::string text;
  if (summary.up_to_date())
    text = fmt::format("{}: up to date, {} documents", out, summary.documents_up_to_date);
  else
    text = fmt::format("{}: {} pages from {} documents in {:.1f} s, {} dropped", out,
                       summary.pages_written, summary.documents_built, summary.seconds,
                       summary.pages_dropped);
  if (!summary.up_to_date() && summary.documents_up_to_date > 0)
    text += fmt::format("; {} documents were up to date", summary.documents_up_to_date);
  if (!summary.skipped.empty())
    text += fmt::format("; {} documents skipped", summary.skipped.size());
  return text + fmt::format("; the folder holds {} pages", summary.list.pages.size());
}

/// What pages were dropped for, without the numbers that differ from page to page.
struct DropKind {
  std::int64_t pages = 0;
  std::string first;  // "<document> page 7: almost no text: 3 characters"
};

/// Pages of this call's documents that are not in the folder, and those that are but with a note.
struct PageFates {
  std::map<std::string, DropKind> dropped;  // by kind_of its reason
  std::int64_t dropped_pages = 0;
  std::vector<std::string> notes;
};

/// What is in front of the first number: "control character U+0001" is of one kind with U+0002.
std::string kind_of(const std::string& reason) {
  return reason.substr(0, std::min(reason.find(':'), reason.find(" U+")));
}

PageFates fates_of(const PageBuildSummary& summary) {
  PageFates fates;
  for (const DocumentEntry& document : summary.list.documents) {
    if (std::find(summary.documents.begin(), summary.documents.end(), document.id) ==
        summary.documents.end())
      continue;
    for (const DroppedPage& page : document.dropped) {
      DropKind& kind = fates.dropped[kind_of(page.reason)];
      if (kind.pages++ == 0)
        kind.first = fmt::format("{} page {}: {}", document.id, page.number, page.reason);
      ++fates.dropped_pages;
    }
    for (const PageNote& page : document.notes)
      fates.notes.push_back(fmt::format("{} page {}: {}", document.id, page.number, page.note));
  }
  return fates;
}

std::string fates_text(const PageFates& fates, const std::string& out) {
  constexpr std::size_t kShown = 5;
  std::string text;
  if (fates.dropped_pages > 0)
    text +=
        fmt::format("{} pages of these documents are not used; all are listed in {}/pages.json:\n",
                    fates.dropped_pages, out);
  for (const auto& [reason, kind] : fates.dropped)
    text += fmt::format("  {:>5}  {}\n         such as {}\n", kind.pages, reason, kind.first);
  if (!fates.notes.empty())
    text += fmt::format("{} notes on pages that are used, in {}/pages.json:\n", fates.notes.size(),
                        out);
  for (std::size_t i = 0; i < std::min(fates.notes.size(), kShown); ++i)
    text += "  " + fates.notes[i] + "\n";
  return text;
}

json fates_json(const PageBuildSummary& summary) {
  json reasons = json::object();
  for (const auto& [reason, kind] : fates_of(summary).dropped) reasons[reason] = kind.pages;
  return reasons;
}

json summary_json(const PageBuildSummary& summary, const std::string& out) {
  json skipped = json::array();
  for (const SkippedDocument& entry : summary.skipped)
    skipped.push_back({{"path", entry.path}, {"reason", entry.reason}});
  return {{"out", out},
          {"documents_built", summary.documents_built},
          {"documents_up_to_date", summary.documents_up_to_date},
          {"pages_written", summary.pages_written},
          {"pages_dropped", summary.pages_dropped},
          {"dropped_reasons", fates_json(summary)},
          {"notes", fates_of(summary).notes},
          {"pages_total", summary.list.pages.size()},
          {"seconds", summary.seconds},
          {"skipped", std::move(skipped)}};
}

void build(PagesArguments arguments) {
  if (!arguments.document_id.empty() && arguments.pdf.size() != 1)
    fail<ConfigError>(fmt::format("data pages: --document-id needs exactly one --pdf, got {}",
                                  arguments.pdf.size()));
  for (const std::string& pdf : arguments.pdf)
    arguments.options.sources.push_back(parse_source(pdf, arguments));
  arguments.options.out = arguments.out;
  PageProgressLines lines;
  arguments.options.progress = [&](const PageProgress& progress) { lines.show(progress); };
  const PageBuildSummary summary = build_pages(arguments.options);
  for (const SkippedDocument& entry : summary.skipped)
    std::fputs(fmt::format("skipped {}: {}\n", entry.path, entry.reason).c_str(), stderr);
  if (summary.documents_built + summary.documents_up_to_date == 0)
    fail<IoError>(fmt::format("data pages: none of {} documents could be read; the first: {}: {}",
                              arguments.options.sources.size(), summary.skipped.front().source,
                              summary.skipped.front().reason));
  if (arguments.json)
    std::cout
        << summary_json(summary, arguments.out).dump(-1, ' ', false, json::error_handler_t::replace)
        << '\n';
  else
    std::cout << summary_text(summary, arguments.out) << '\n'
              << fates_text(fates_of(summary), arguments.out);
}

void add_pages(Command data) {
  Command command = data.add_subcommand(
      "pages", "PDF documents -> page pictures (.png), text (.txt), words with boxes (.json)");
  const auto arguments = std::make_shared<PagesArguments>();
  PageBuildOptions& options = arguments->options;
  command
      .add_option("--pdf", arguments->pdf,
                  "PDF files, also .pdf.gz; FILE:20-290 takes those pages only")
      .required();
  command.add_option("--out", arguments->out, "Folder; documents already in it stay").required();
  command.add_option("--dpi", options.dots_per_inch, "Resolution of the pictures").show_default();
  command.add_option("--first", arguments->first, "First page, from 1").show_default();
  command.add_option("--last", arguments->last, "Last page; 0: the document's last").show_default();
  command.add_option("--jobs", options.jobs, "PDF tools that run at the same time").show_default();
  command.add_option("--document-id", arguments->document_id,
                     "Name of the document in the folder (one --pdf only)");
  command.add_option("--licence", options.licence, "Recorded with the documents in pages.json");
  command
      .add_option("--min-characters", options.quality.min_characters,
                  "Pages with less text are dropped")
      .show_default();
  command.add_flag("--json", arguments->json, "Print one JSON object about the result");
  command.callback([arguments] { build(*arguments); });
}

}  // namespace

void add_data(Command app) {
  Command data = app.add_subcommand("data", "Make training data");
  data.require_subcommand();
  add_pages(data);
  add_data_shards(data);
  add_data_pairs(data);
  add_data_synthetic(data);
  add_data_segments(data);
}

}  // namespace lectern::commands
