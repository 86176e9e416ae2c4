// lectern ablate RECIPE.toml: plain, HC and mHC with the same seeds; tables, curves and a report.
#include "recipes/ablate/ablate.h"

#include "core/error.h"
#include "core/parallel.h"
#include "recipes/commands/command.h"
#include "recipes/log/progress.h"
#include "recipes/machine/interrupt.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <memory>

namespace lectern::commands {
namespace {

void run_one(const AblationRecipe& recipe, const std::string& id) {
  for (const AblationJob& job : ablation_jobs(recipe))
    if (job.id == id) return run_ablation_job(recipe, job);
  fail<ConfigError>(fmt::format("{}: has no job {}", recipe.name, id));
}

}  // namespace

void add_ablate(Command app) {
  struct Options {
    std::string recipe, job;
    std::vector<std::string> overrides;
    std::int64_t threads = 0;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  Command command = app.add_subcommand(
      "ablate", "train the variants of an ablation; run again, it goes on where it was");
  command.add_option("RECIPE", options->recipe, "ablation recipe, TOML").required();
  command.add_option("--set", options->overrides, "key=value; table.key reaches into a table")
      .repeated();
  command.add_option("--job", options->job, "run this job only, in this process");
  command.add_option("--threads", options->threads, "CPU threads of --job; 0: all cores")
      .range(0, 4096);
  command.add_flag("--json", options->json, "print one JSON object at the end");
  command.callback([options] {
    install_signal_handlers();
    set_up_log();
    if (options->threads > 0) set_thread_count(static_cast<int>(options->threads));
    const AblationRecipe recipe = load_ablation(options->recipe, options->overrides);
    if (!options->job.empty()) return run_one(recipe, options->job);
    std::vector<std::string> arguments = {options->recipe};
    for (const std::string& one : options->overrides) {
      arguments.push_back("--set");
      arguments.push_back(one);
    }
    const std::int64_t failed =
        run_ablation(recipe, std::filesystem::read_symlink("/proc/self/exe"), arguments);
    const auto report = (recipe.out / "report.html").string();
    if (options->json)
      fmt::print("{}\n", nlohmann::ordered_json{{"jobs", ablation_jobs(recipe).size()},
                                                {"failed", failed},
                                                {"table", (recipe.out / "table.md").string()},
                                                {"report", report}}
                             .dump());
    else
      fmt::print("{}\n", report);
    if (failed > 0) fail<Error>(fmt::format("ablate: {} jobs failed; run again to retry", failed));
    if (stop_requested()) fail<Error>("ablate: stopped; run again to go on");
  });
}

}  // namespace lectern::commands
