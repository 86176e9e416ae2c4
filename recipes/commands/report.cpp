// lectern report --run DIR --out report.html: what a run did, on one page.
#include "recipes/report/report.h"

#include "core/io/file.h"
#include "recipes/commands/command.h"
#include "recipes/report/comparison.h"
#include "recipes/report/quickstart_summary.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <memory>

namespace lectern::commands {

void add_report(Command app) {
  struct Arguments {
    std::string run, quickstart, beside, out = "report.html";
  };
  auto arguments = std::make_shared<Arguments>();
  Command command = app.add_subcommand("report", "Write the HTML report of a run");
  Option run =
      command.add_option("--run", arguments->run,
                         "Folder with report.json, metrics.jsonl, or run folders stage1 to stage3");
  Option quickstart = command.add_option("--quickstart", arguments->quickstart,
                                         "Folder that quickstart.sh made; also writes its "
                                         "metrics.json");
  Option beside = command.add_option(
      "--beside", arguments->beside,
      "Folder of scripts/eval-beside-tesseract.sh; also writes its results.json and table.md");
  run.excludes(quickstart).excludes(beside);
  quickstart.excludes(beside);
  command.add_option("--out", arguments->out, "HTML file to write").show_default();
  command.callback([arguments] {
    if (arguments->run.empty() && arguments->quickstart.empty() && arguments->beside.empty())
      fail_with_missing("--run, --quickstart or --beside");
    if (!arguments->beside.empty()) {
      const Comparison comparison = read_comparison(arguments->beside);
      write_file(comparison.folder / "results.json", comparison_json(comparison).dump(1) + "\n");
      write_file(comparison.folder / "table.md", comparison_markdown(comparison));
      write_file(arguments->out, comparison_html(comparison));
      fmt::print("{}\n", arguments->out);
      return;
    }
    if (!arguments->quickstart.empty()) {
      const std::filesystem::path folder = arguments->quickstart;
      write_file(folder / "metrics.json", quickstart_metrics(folder).dump(2) + "\n");
      write_file(arguments->out, render_report(quickstart_report(folder)));
    } else {
      write_file(arguments->out, render_report(load_report(arguments->run)));
    }
    fmt::print("{}\n", arguments->out);
  });
}

}  // namespace lectern::commands
