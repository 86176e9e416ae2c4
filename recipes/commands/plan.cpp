// lectern plan: which mesh to train a recipe on, here or on GPUs that are elsewhere.
#include "recipes/plan/plan.h"

#include "core/error.h"
#include "recipes/commands/command.h"
#include "recipes/plan/adapter_plan.h"
#include "recipes/plan/scale_plan.h"
#include "recipes/train/initial_weights.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <memory>
#include <string>
#include <vector>

namespace lectern::commands {
namespace {

struct PlanOptions {
  std::string recipe;
  std::vector<std::string> overrides;
  std::int64_t ranks = 0;
  // of a prediction
  std::int64_t nodes = 1, gpus = 0;
  std::string gpu, figures = "machines/gpus", measured;
  double products = 0, link_rate = 0, network_rate = 0, observed = 0;
  std::int64_t crops = 6, text = 1024;
  bool text_only = false;
  bool adapter = false;
  bool json = false;
};

ScaleInput scale_input(const PlanOptions& options, const Recipe& recipe) {
  const Cluster cluster{options.nodes, options.gpus};
  if (is_this_machine(options.gpu)) return timed_input(recipe, cluster);
  Hardware hardware = load_hardware(options.figures, options.gpu, recipe.dtype);
  if (options.products > 0) {
    hardware.products = options.products;
    hardware.products_from = "assumption, --utilisation";
  }
  if (options.link_rate > 0) hardware.link_rate = 1e9 * options.link_rate;
  if (options.network_rate > 0) hardware.network_rate = 1e9 * options.network_rate;
  if (!options.measured.empty()) {
    hardware.products = measured_share(options.measured, recipe, hardware);
    hardware.products_from = "measured, " + options.measured;
  }
  const PageShape page{
      .crops = options.crops, .text_tokens = options.text, .has_image = !options.text_only};
  return counted_input(recipe, hardware, cluster, page);
}

void run_scale(const PlanOptions& options, const Recipe& recipe) {
  const ScaleInput input = scale_input(options, recipe);
  // The recipe's own mesh first, then what else there is.
  std::vector<ScalePlan> plans = {plan_scale(input, recipe, recipe.mesh, recipe.batch.micro_batch)};
  for (ScalePlan& other : plan_scales(input, recipe)) {
    const bool own = other.mesh.pp == plans[0].mesh.pp && other.mesh.ep == plans[0].mesh.ep &&
                     other.micro_batch == plans[0].micro_batch;
    if (!own) plans.push_back(std::move(other));
  }
  std::optional<double> implied;
  if (options.observed > 0) implied = implied_share(input, recipe, plans[0], options.observed);
  if (options.json) {
    nlohmann::ordered_json out = scale_json(input, recipe, plans);
    if (options.observed > 0) {
      out["observed_tokens_a_day"] = options.observed;
      out["implied_products_share"] = implied ? nlohmann::json(*implied) : nlohmann::json();
    }
    fmt::print("{}\n", out.dump());
    return;
  }
  fmt::print("{}", scale_report(input, recipe, plans));
  if (options.observed == 0) return;
  fmt::print(
      "\n{:.1f} B tokens a day were reported; predicted are {:.1f} B, {:.2f} times as many. ",
      options.observed / 1e9, plans[0].tokens_a_day / 1e9,
      plans[0].tokens_a_day / options.observed);
  if (implied)
    fmt::print("On this mesh that rate means that products reach {:.1f} % of the peak.\n",
               100 * *implied);
  else
    fmt::print("No share of the peak rate gives that on this mesh.\n");
}

void run_here(const PlanOptions& options, const Recipe& recipe) {
  const TrainingPlan plan = plan_training(recipe, options.ranks);
  if (options.json) {
    fmt::print("{}\n", plan_json(plan).dump());
    return;
  }
  fmt::print(
      "{}\nA rank is taken to be as fast as this process with its threads (threads = ... in the "
      "recipe); time for exchanging gradients and activations is not in it.\n",
      plan_tables(plan));
}

void run_adapter(const PlanOptions& options, const Recipe& recipe) {
  if (!recipe.adapts())
    fail<ConfigError>(fmt::format(
        "{}: must have [lora] or model.adapter for --adapter, got neither", options.recipe));
  const AdapterPlan plan = plan_adapter(recipe, *model_config(recipe));
  if (options.json)
    fmt::print("{}\n", adapter_plan_json(plan).dump());
  else
    fmt::print("{}", adapter_table(plan));
}

/// What --gpu goes with.
void add_scale_options(Command& command, Option& gpu, PlanOptions& options) {
  const auto scale = [&](Option option) { return option.needs(gpu); };
  scale(command.add_option("--nodes", options.nodes, "machines")).range(1, 65536);
  scale(command.add_option("--figures", options.figures, "rates of GPUs, TOML"));
  scale(command.add_option("--measured", options.measured,
                           "a line of `lectern bench step` on that GPU: replaces the assumed "
                           "share of the peak rate"));
  scale(command.add_option("--utilisation", options.products,
                           "assumed share of the peak rate that products reach"))
      .range(0.001, 1.0);
  scale(command.add_option("--link-rate", options.link_rate,
                           "from a GPU to others of its node, one direction, GB/s"))
      .positive();
  scale(command.add_option("--network-rate", options.network_rate,
                           "from a node to others, one direction, GB/s"))
      .positive();
  scale(command.add_option("--crops", options.crops, "tiles of a page, where the recipe crops"))
      .range(0, 6);
  scale(command.add_option("--text", options.text, "tokens of a page's prompt and text"))
      .range(1, 1 << 20);
  scale(command.add_flag("--text-only", options.text_only, "rows of text without pictures"));
  scale(command.add_option("--observed", options.observed,
                           "tokens a day that somebody reported: says what they imply"))
      .positive();
}

}  // namespace

void add_plan(Command app) {
  auto options = std::make_shared<PlanOptions>();
  Command command = app.add_subcommand(
      "plan",
      "predict a step on every mesh: of ranks of this machine (each unit of the model timed once), "
      "or of nodes of GPUs (operations counted)");
  command.add_option("RECIPE", options->recipe, "recipe, TOML").required();
  Option ranks = command.add_option("--ranks", options->ranks, "processes that there will be")
                     .range(1, 1 << 20);
  Option gpus =
      command.add_option("--gpus", options->gpus, "ranks of a node").range(1, 1024).excludes(ranks);
  Option gpu = command.add_option("--gpu", options->gpu,
                                  "what a rank is: a GPU of the figures file, or cpu: a process "
                                  "of this machine");
  gpu.needs(gpus);
  gpus.needs(gpu);
  add_scale_options(command, gpu, *options);
  command
      .add_flag("--adapter", options->adapter,
                "what low-rank adapters of the recipe's model cost, target by target")
      .excludes(ranks);
  command.add_option("--set", options->overrides, "key=value; table.key reaches into a table")
      .repeated();
  command.add_flag("--json", options->json, "print one JSON object");
  command.callback([options] {
    if (options->ranks == 0 && options->gpu.empty() && !options->adapter)
      fail_with_missing("--ranks, or --gpus and --gpu, or --adapter");
    const Recipe recipe = load_recipe(options->recipe, options->overrides);
    if (options->adapter) return run_adapter(*options, recipe);
    if (recipe.adapts())
      fail<ConfigError>(fmt::format(
          "{}: steps are predicted of whole models only, and this trains an adapter; --adapter "
          "says what that costs",
          options->recipe));
    if (options->gpu.empty())
      run_here(*options, recipe);
    else
      run_scale(*options, recipe);
  });
}

}  // namespace lectern::commands
