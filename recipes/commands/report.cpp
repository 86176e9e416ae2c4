// lectern report --run DIR --out report.html: what a run did, on one page.
#include "recipes/report.h"

#include "core/file.h"
#include "recipes/commands/command.h"

#include <fmt/format.h>

#include <memory>

namespace lectern::commands {

void add_report(CLI::App& app) {
  struct Arguments {
    std::string run, out = "report.html";
  };
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand("report", "Write the HTML report of a run");
  command
      ->add_option("--run", arguments->run,
                   "Folder with report.json, metrics.jsonl, or run folders stage1 to stage3")
      ->required();
  command->add_option("--out", arguments->out, "HTML file to write")->capture_default_str();
  command->callback([arguments] {
    write_file(arguments->out, render_report(load_report(arguments->run)));
    fmt::print("{}\n", arguments->out);
  });
}

}  // namespace lectern::commands
