// Where a prediction's times come from: operations over a card's rate, or this machine.
#include "core/io/file.h"
#include "core/parallel.h"
#include "recipes/plan/scale_plan.h"
#include "recipes/train/initial_weights.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <thread>

namespace lectern {
namespace {

/// What the recipe's batches are made of.
ScaleInput input_of_recipe(const Recipe& recipe, const ModelConfig& config, const Cluster& cluster,
                           const PageShape& page) {
  ScaleInput input;
  input.cluster = cluster;
  input.page = page;
  input.page_tokens = page.tokens(config);
  input.experts = config.decoder.is_sparse() ? config.decoder.n_routed_experts : 0;
  input.encoder_cached = recipe.encoder_cache.enabled;
  if (recipe.data.pack_tokens > 0) {
    const auto tokens = static_cast<double>(recipe.data.pack_tokens);
    if (input.page_tokens > tokens)
      fail<ConfigError>(
          fmt::format("plan: a page of {:.0f} tokens does not fit into "
                      "data.pack_tokens = {}",
                      input.page_tokens, recipe.data.pack_tokens));
    input.pages = std::floor(tokens / input.page_tokens);
  }
  return input;
}

std::vector<UnitCost> seconds_of(const std::vector<UnitWork>& units, const Hardware& hardware,
                                 bool recompute) {
  std::vector<UnitCost> out;
  for (std::size_t u = 0; u < units.size(); ++u) {
    const UnitWork& unit = units[u];
    const double streams = hardware.seconds_of_memory(unit.stream_bytes);
    const double forward = hardware.seconds_of_products(unit.forward) + streams;
    double backward = hardware.seconds_of_products(unit.backward) + 2 * streams;
    if (recompute && u + 1 < units.size()) backward += forward;
    out.push_back(
        {unit.name, unit.parameters, unit.has_backward, forward, unit.has_backward ? backward : 0});
  }
  return out;
}

}  // namespace

ScaleInput counted_input(const Recipe& recipe, const Hardware& hardware, const Cluster& cluster,
                         PageShape page) {
  const auto read = model_config(recipe);
  const ModelConfig& config = *read;
  page.tile_size = recipe.view.tile_size;
  page.global_sizes = {recipe.view.global_size};
  if (!recipe.view.crop || !page.has_image) {
    page.crops = 0;
    if (!recipe.view.resolutions.empty()) page.global_sizes = recipe.view.resolutions;
  }
  ScaleInput input = input_of_recipe(recipe, config, cluster, page);
  input.hardware = hardware;
  const std::int64_t rows = recipe.data.pack_tokens > 0 ? 1 : recipe.batch.micro_batch;
  MicroBatchCosts costs;
  costs.work = count_units(config, page, static_cast<double>(rows) * input.pages, recipe.freeze);
  costs.seconds = seconds_of(costs.work, hardware, recipe.recompute);
  input.costs.emplace(recipe.batch.micro_batch, std::move(costs));
  return input;
}

ScaleInput timed_input(const Recipe& recipe, const Cluster& cluster) {
  const double cores = static_cast<double>(std::max(1u, std::thread::hardware_concurrency()));
  Recipe of_rank = recipe;
  if (of_rank.threads == 0)
    of_rank.threads =
        std::max<std::int64_t>(1, static_cast<std::int64_t>(cores) / cluster.per_node);
  const RecipeTimes times = time_recipe(of_rank);
  PageShape page;
  page.crops = std::llround(times.crops);
  page.tile_size = recipe.view.tile_size;
  page.global_sizes = {recipe.view.global_size};
  page.text_tokens = std::llround(times.text_tokens);
  ScaleInput input = input_of_recipe(recipe, *times.config, cluster, page);
  input.hardware = this_machine();
  input.cores = cores;
  input.threads = static_cast<double>(of_rank.threads);
  input.update_seconds = times.optimizer;
  input.load_seconds = times.load;
  input.encoder_cached = false;
  for (const auto& [size, seconds] : times.units) {
    const double pages = static_cast<double>(size) * input.pages;
    input.costs.emplace(
        size, MicroBatchCosts{seconds, count_units(*times.config, page, pages, recipe.freeze)});
  }
  return input;
}

double measured_share(const std::filesystem::path& file, const Recipe& recipe,
                      const Hardware& hardware) {
  const auto read = model_config(recipe);
  const ModelConfig& config = *read;
  try {
    const nlohmann::json line = nlohmann::json::parse(read_file(file));
    const auto refuse = [&](const char* field, const std::string& wanted) {
      fail<ConfigError>(fmt::format("{}: {} must be {}, got {}", file.string(), field, wanted,
                                    line.at(field).dump()));
    };
    if (line.at("device") != "cuda") refuse("device", "\"cuda\"");
    if (line.at("variant") != recipe.dtype) refuse("variant", fmt::format("\"{}\"", recipe.dtype));
    const double parameters = config.parameter_count();
    if (line.at("parameters").get<double>() != parameters)
      refuse("parameters", fmt::format("{:.0f}, those of the recipe's model", parameters));
    const PageShape page{.crops = line.at("crops").get<std::int64_t>(),
                         .text_tokens = line.at("text").get<std::int64_t>() + 1};
    const std::vector<UnitWork> units =
        count_units(config, page, line.at("batch").get<double>(),
                    frozen_parts(line.at("stage").get<std::int64_t>()));
    const bool cached = line.value("encoder_cache", false);
    double operations = 0, trained = 0;
    for (const UnitWork& unit : units) {
      trained += static_cast<double>(unit.trained_parameters);
      if (cached && !unit.has_backward) continue;
      operations += unit.forward + unit.backward;
      if (line.value("recompute", false) && unit.has_backward) operations += unit.forward;
    }
    const double seconds =
        line.at("seconds_min").get<double>() - hardware.seconds_of_memory(32 * trained);
    const double share = operations / (seconds * hardware.product_rate);
    if (!(share > 0 && share <= 1))
      fail<ConfigError>(fmt::format(
          "{}: seconds_min must be that of a step on this card: it gives {:.2f} of the peak rate",
          file.string(), share));
    return share;
  } catch (const nlohmann::json::exception& error) {
    fail<IoError>(
        fmt::format("{}: must be a line of `lectern bench step`: {}", file.string(), error.what()));
  }
}

std::optional<double> implied_share(const ScaleInput& input, const Recipe& recipe,
                                    const ScalePlan& plan, double tokens_a_day) {
  MeshRecipe mesh = recipe.mesh;
  mesh.pp = plan.mesh.pp;
  mesh.ep = plan.mesh.ep;
  mesh.chunks = plan.pipeline.shape.chunks;
  mesh.split = plan.mesh.pp > 1 ? plan.pipeline.ends : std::vector<std::int64_t>{};
  const auto reached = [&](double share) {
    ScaleInput with = input;
    with.hardware.products = share;
    for (auto& [size, costs] : with.costs)
      costs.seconds = seconds_of(costs.work, with.hardware, recipe.recompute);
    return plan_scale(with, recipe, mesh, plan.micro_batch).tokens_a_day;
  };
  double low = 1e-4, high = 1;
  if (reached(high) < tokens_a_day || reached(low) > tokens_a_day) return std::nullopt;
  for (int i = 0; i < 40; ++i) {
    const double middle = std::sqrt(low * high);
    (reached(middle) < tokens_a_day ? low : high) = middle;
  }
  return high;
}

}  // namespace lectern
