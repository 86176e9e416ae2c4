// lectern plan: which mesh to train a recipe on.
#include "recipes/plan.h"

#include "recipes/commands/command.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <memory>
#include <string>
#include <vector>

namespace lectern::commands {

void add_plan(CLI::App& app) {
  struct Options {
    std::string recipe;
    std::vector<std::string> overrides;
    std::int64_t ranks = 1;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "plan", "time each unit of a recipe's model once and predict a step on every mesh");
  command->add_option("RECIPE", options->recipe, "recipe, TOML")->required();
  command->add_option("--ranks", options->ranks, "processes that there will be")
      ->required()
      ->check(CLI::Range(1, 1 << 20));
  command->add_option("--set", options->overrides, "key=value; table.key reaches into a table")
      ->take_all()
      ->allow_extra_args(false);
  command->add_flag("--json", options->json, "print one JSON object");
  command->callback([options] {
    const Recipe recipe = load_recipe(options->recipe, options->overrides);
    const TrainingPlan plan = plan_training(recipe, options->ranks);
    if (options->json) {
      fmt::print("{}\n", plan_json(plan).dump());
      return;
    }
    fmt::print(
        "{}\nA rank is taken to be as fast as this process with its threads (threads = ... in the "
        "recipe); time for exchanging gradients and activations is not in it.\n",
        plan_tables(plan));
  });
}

}  // namespace lectern::commands
