// lectern score --pred DIR --gt DIR: how well pages were read, from text files alone.
#include "recipes/evaluate/score.h"

#include "core/io/file.h"
#include "recipes/commands/command.h"

#include <fmt/format.h>

#include <memory>

namespace lectern::commands {
namespace {

struct ScoreArguments {
  std::string predicted, truth, out;
  bool json = false, normalize = false;
};

void list(const char* title, const std::vector<std::string>& names) {
  if (names.empty()) return;
  fmt::print("{} ({}):\n", title, names.size());
  for (const std::string& name : names) fmt::print("  {}\n", name);
}

void print_table(const Scores& scores, const std::vector<std::string>& missing,
                 const std::vector<std::string>& extra) {
  fmt::print("pages                     {}\n", scores.pages.size());
  fmt::print("edit distance             {:.4f}   (mean over pages; {:.4f} over all text)\n",
             scores.edit_distance, scores.edit_distance_corpus);
  fmt::print("character error rate      {:.4f}   (over all text; mean over pages {:.4f})\n",
             scores.cer, scores.cer_mean);
  fmt::print("word sets                 precision {:.4f}, recall {:.4f}, F1 {:.4f}\n",
             scores.precision, scores.recall, scores.f1);
  fmt::print("pages ending in a loop    {:.4f}\n", scores.repetition_rate);
  fmt::print("pages without an error    {}\n", scores.exact);
  list("no prediction, counted as read empty", missing);
  list("predictions without a truth, not counted", extra);
}

void run_score(const ScoreArguments& arguments) {
  std::vector<std::string> extra;
  const Scores scores = score_folders(arguments.predicted, arguments.truth,
                                      {.normalize = arguments.normalize}, extra);
  std::vector<std::string> missing, problems;
  for (const PageScore& page : scores.pages) {
    if (page.missing) missing.push_back(page.name);
    if (!page.problem.empty()) problems.push_back(page.problem);
  }
  for (const std::string& problem : problems)
    tell(fmt::format("lectern: {}; counted as read empty", problem));
  if (arguments.json)
    fmt::print("{}\n", scores_json(scores, arguments.out.empty()));
  else
    print_table(scores, missing, extra);
  // Last: the scores are not lost when it cannot be written.
  if (!arguments.out.empty()) write_file(arguments.out, scores_json(scores, true) + "\n");
  if (!problems.empty()) throw AlreadyTold{};
}

}  // namespace

void add_score(Command app) {
  auto arguments = std::make_shared<ScoreArguments>();
  Command command = app.add_subcommand("score", "Score predicted pages against their truth");
  command
      .add_option("--pred", arguments->predicted, "Folder of predictions, <page>.md or .txt, UTF-8")
      .required();
  command
      .add_option(
          "--gt", arguments->truth,
          "Folder of truths, the same file stems. A byte order mark, the kind of line ends and "
          "those at the end of a file do not count")
      .required();
  command.add_option("--out", arguments->out, "Write all scores, page by page, to this JSON file");
  command.add_flag("--json", arguments->json, "Print one JSON object");
  command.add_flag("--normalize", arguments->normalize,
                   "Before scoring: NFKC, runs of white space as one space, ends trimmed");
  command.callback([arguments] { run_score(*arguments); });
}

}  // namespace lectern::commands
