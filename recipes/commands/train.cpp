// lectern train: one stage of training.
#include "core/error.h"
#include "distributed/world.h"
#include "recipes/commands/command.h"
#include "recipes/log/progress.h"
#include "recipes/machine/interrupt.h"
#include "recipes/train/trainer.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cstdio>
#include <cstring>
#include <memory>

namespace lectern::commands {

namespace {

/// Stages that write to one folder would overwrite each other (--set run_dir on several).
void check_run_dirs(const std::vector<Recipe>& recipes) {
  for (std::size_t i = 1; i < recipes.size(); ++i)
    if (recipes[i].run_dir == recipes[i - 1].run_dir)
      fail<ConfigError>(fmt::format("train: each stage needs a run_dir of its own, two have {}",
                                    recipes[i].run_dir.string()));
}

/// Runs a stage; says how it was stopped, "" when it ran to its end.
std::string run_stage(const Recipe& recipe, bool resume, bool profile, bool json,
                      const World& world) {
  const TrainingSummary summary = train(recipe, resume, profile, world.ranks());
  if (json && world.rank() == 0)
    // main() tells when this cannot be written: the stages that follow run all the same.
    std::puts(nlohmann::ordered_json{{"stage", recipe.stage},
                                     {"steps", summary.steps},
                                     {"loss_first", summary.loss_first},
                                     {"loss_last", summary.loss_last},
                                     {"seconds", summary.seconds},
                                     {"samples_per_second", summary.samples_per_second},
                                     {"checkpoint", summary.checkpoint}}
                  .dump()
                  .c_str());
  if (summary.stopped_by == 0) return "";
  return fmt::format("stopped by {} after step {}; saved {}; go on with --resume",
                     strsignal(summary.stopped_by), summary.steps, summary.checkpoint);
}

/// Runs the stages in turn on all ranks of the job, and leaves the job in order.
void run_stages(const std::vector<Recipe>& recipes, bool resume, bool profile, bool json) {
  std::string stopped;
  int rank = 0;
  {
    const World world;
    rank = world.rank();
    set_up_log(rank, world.size());
    for (std::size_t i = 0; i < recipes.size() && stopped.empty(); ++i)
      stopped = run_stage(recipes[i], resume, profile, json, world);
  }
  if (stopped.empty()) return;
  if (rank > 0) throw AlreadyTold();
  fail<Error>(stopped);
}

}  // namespace

void add_train(Command app) {
  struct Options {
    std::string recipe;
    std::vector<std::string> overrides;
    bool resume = false, profile = false, json = false;
  };
  auto options = std::make_shared<Options>();
  Command command = app.add_subcommand(
      "train", "run one stage of training, or several in turn; under mpirun -np N on N ranks");
  command
      .add_option("RECIPE", options->recipe, "recipe, TOML; or a list of recipes, stages = [...]")
      .required();
  command.add_option("--set", options->overrides, "key=value; table.key reaches into a table")
      .repeated();
  command.add_flag("--resume", options->resume, "go on from the newest complete checkpoint");
  command.add_flag("--profile", options->profile,
                   "write RUN_DIR/trace.json, a Chrome trace of three steps, for ui.perfetto.dev");
  command.add_flag("--json", options->json, "print one JSON object at the end");
  command.callback([options] {
    install_signal_handlers();
    std::vector<Recipe> recipes;  // all are read before the first runs
    for (const std::filesystem::path& path : recipe_stages(options->recipe))
      recipes.push_back(load_recipe(path, options->overrides));
    check_run_dirs(recipes);
    run_stages(recipes, options->resume, options->profile, options->json);
  });
}

}  // namespace lectern::commands
