#include "recipes/plan/plan.h"

#include "autograd/compute_dtype.h"
#include "core/parallel.h"
#include "core/statistics.h"
#include "core/stopwatch.h"
#include "data/samples/loader.h"
#include "data/tokenizer/tokenizer.h"
#include "nn/optim/optimizer.h"
#include "recipes/train/encoder_features.h"
#include "recipes/train/initial_weights.h"
#include "recipes/train/training_data.h"

#include <fmt/core.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <limits>

namespace lectern {
namespace {

/// What the next unit would receive: leaves with the same values.
Streams passed_on(const Streams& x) {
  if (!x.graph.defined()) return {};
  return Streams(Variable(x.value, x.graph.requires_grad()));
}

/// Backward of one unit alone: everything it gave, with gradients of ones, in one pass.
void run_backward(const Activation& out, const Variable& objective) {
  std::vector<Variable> roots;
  std::vector<Tensor> gradients;
  for (const Streams* part : {&out.global, &out.local, &out.hidden})
    if (part->graph.defined() && part->graph.requires_grad()) {
      roots.push_back(part->graph);
      gradients.push_back(Tensor::full(part->value.shape(), 1.0, part->value.dtype()));
    }
  if (objective.defined() && objective.requires_grad()) {
    roots.push_back(objective);
    gradients.push_back(Tensor::full(objective.shape(), 1.0, objective.dtype()));
  }
  if (roots.empty()) return;
  record("plan", Tensor::zeros({}), roots, [gradients](const Tensor&) {
    return gradients;
  }).backward();
}

/// One pass through all units; keeps the fastest times.
void time_pass(const OcrModel& model, const ModelInput& input, const ForwardContext& like,
               std::vector<UnitCost>& units) {
  Activation x;
  for (std::size_t i = 0; i < units.size(); ++i) {
    ForwardContext context = like;
    const auto unit = static_cast<std::int64_t>(i);
    const double start = now();
    Activation out;
    Variable objective;
    if (i + 1 < units.size())
      out = model.run_units({unit, unit + 1}, input, x, context);
    else
      objective = model.loss_of(x.hidden, input, context).loss_sum;
    const double middle = now();
    x = {passed_on(out.global), passed_on(out.local), passed_on(out.hidden)};
    const double backward_start = now();
    run_backward(out, objective);
    units[i].forward = std::min(units[i].forward, middle - start);
    units[i].backward = std::min(units[i].backward, now() - backward_start);
  }
}

double sum(const std::vector<double>& values, std::int64_t begin, std::int64_t end) {
  double out = 0;
  for (std::int64_t i = begin; i < end; ++i) out += values[static_cast<std::size_t>(i)];
  return out;
}

}  // namespace

std::vector<UnitCost> time_units(OcrModel& model, const ModelInput& input, const Recipe& recipe,
                                 int repeats) {
  const ModelConfig& config = model.config();
  std::vector<UnitCost> units(static_cast<std::size_t>(config.unit_count()));
  for (std::size_t i = 0; i < units.size(); ++i)
    units[i].name = config.unit_name(static_cast<std::int64_t>(i));
  for (const Parameter& parameter : model.store().parameters()) {
    UnitCost& unit = units[static_cast<std::size_t>(config.unit_of_parameter(parameter.name))];
    unit.parameters += parameter.variable.value().numel();
    unit.trained |= parameter.variable.requires_grad();
  }
  for (std::size_t i = 1; i < units.size(); ++i) units[i].trained |= units[i - 1].trained;
  ForwardContext context;
  context.recompute_blocks = recipe.recompute;
  context.stream_interval = recipe.recompute_streams;
  time_pass(model, input, context, units);
  for (UnitCost& unit : units)
    unit.forward = unit.backward = std::numeric_limits<double>::infinity();
  for (int repeat = 0; repeat < repeats; ++repeat) time_pass(model, input, context, units);
  return units;
}

MeshPlan plan_mesh(const std::vector<UnitCost>& units, std::int64_t pp, std::int64_t dp,
                   std::int64_t micro_batches, const MeshDetails& details) {
  MeshPlan plan;
  plan.pp = pp;
  plan.dp = dp;
  plan.micro_batches = micro_batches;
  std::vector<double> forward, backward, both;
  for (const UnitCost& unit : units) {
    forward.push_back(unit.forward);
    backward.push_back(unit.trained ? unit.backward : 0);
    both.push_back(forward.back() + backward.back());
  }
  plan.ends = details.ends.empty() ? split_by_cost(both, pp * details.chunks) : details.ends;
  PipelineShape& shape = plan.shape;
  shape.stages = pp;
  shape.chunks = details.chunks;
  shape.micro_batches = micro_batches;
  PipelineCosts costs;
  std::vector<std::int64_t> parameters(static_cast<std::size_t>(pp), 0);
  std::int64_t begin = 0;
  for (std::size_t piece = 0; piece < plan.ends.size(); ++piece) {
    const std::int64_t end = plan.ends[piece];
    const auto last = static_cast<std::size_t>(end - 1);
    costs.forward.push_back(sum(forward, begin, end));
    costs.backward.push_back(sum(backward, begin, end));
    for (std::int64_t i = begin; i < end; ++i)
      parameters[piece % parameters.size()] += units[static_cast<std::size_t>(i)].parameters;
    if (!units[last].trained) ++shape.first_trained;
    if (piece + 1 < plan.ends.size() && !details.transfer.empty())
      costs.transfer = std::max(costs.transfer, details.transfer[last]);
    begin = end;
  }
  plan.most_parameters = *std::max_element(parameters.begin(), parameters.end());
  const PipelineTimeline run = simulate_pipeline(shape, costs);
  plan.seconds = run.seconds;
  plan.bubble = run.bubble;
  plan.in_flight = run.in_flight;
  return plan;
}

std::vector<MeshPlan> plan_meshes(const TimedUnits& timed, const BatchRecipe& batch,
                                  std::int64_t ranks) {
  if (ranks < 1) fail<ConfigError>(fmt::format("plan: ranks must be at least 1, got {}", ranks));
  std::vector<MeshPlan> out;
  for (std::int64_t pp = 1; pp <= ranks; ++pp) {
    if (ranks % pp != 0) continue;
    std::optional<MeshPlan> best;
    for (const auto& [micro_batch, units] : timed) {
      const std::int64_t share = ranks / pp * micro_batch;
      if (pp > static_cast<std::int64_t>(units.size()) || batch.global_size % share != 0) continue;
      MeshPlan plan = plan_mesh(units, pp, ranks / pp, batch.global_size / share);
      plan.micro_batch = micro_batch;
      if (!best || plan.seconds < best->seconds) best = plan;
    }
    if (best) out.push_back(*best);
  }
  if (out.empty())
    fail<ConfigError>(
        fmt::format("plan: {} ranks fit no mesh: batch.global_size is {} and must be a multiple "
                    "of data-parallel ranks x micro-batch, and a pipeline needs a unit a stage",
                    ranks, batch.global_size));
  std::stable_sort(out.begin(), out.end(),
                   [](const MeshPlan& a, const MeshPlan& b) { return a.seconds < b.seconds; });
  return out;
}

namespace {

/// The gradients that the last pass left, through their norm and AdamW.
double time_update(OcrModel& model) {
  AdamW optimizer;
  const NamedParameters parameters = model.store().trainable();
  optimizer.add_group("all", parameters);
  double fastest = std::numeric_limits<double>::infinity();
  for (int repeat = 0; repeat < 3; ++repeat) {
    const double start = now();
    const double scale = clip_scale(gradient_norm(parameters), 1.0);
    optimizer.step(0.0, scale);
    fastest = std::min(fastest, now() - start);
  }
  return fastest;
}

/// Seconds of making a sample, the median over batches: pages are read and decoded only now and
/// then, more often at the beginning of a run than later.
double seconds_of_loading(Loader& loader) {
  constexpr std::size_t kBatches = 64;
  constexpr double kSeconds = 2;
  std::vector<double> seconds;
  for (const double begin = now(); seconds.size() < kBatches && now() - begin < kSeconds;) {
    const double start = now();
    const std::int64_t samples = loader.next().samples;
    seconds.push_back((now() - start) / static_cast<double>(samples));
  }
  return median(std::move(seconds));
}

}  // namespace

RecipeTimes time_recipe(const Recipe& recipe) {
  if (recipe.threads > 0) set_thread_count(static_cast<int>(recipe.threads));
  const ComputeDType scope(compute_dtype_of(recipe.dtype));
  const Tokenizer tokenizer = Tokenizer::load(recipe.data.tokenizer);
  RecipeTimes out;
  out.config = model_config(recipe, tokenizer);
  const auto made = out.config->make(static_cast<std::uint64_t>(recipe.seed));
  OcrModel& model = *made;
  model.store().freeze(out.config->prefixes_of(recipe.freeze));
  LoaderOptions options = loader_options(recipe, *out.config);
  options.workers = 0;
  const auto samples = training_samples(recipe, *out.config, tokenizer);
  const bool packed = recipe.data.pack_tokens > 0;
  constexpr std::size_t kSizes = 4;  // of micro-batches that are tried, each half the one before
  for (std::int64_t size = packed ? 1 : recipe.batch.micro_batch; out.units.size() < kSizes;
       size /= 2) {
    if (!packed) options.micro_batch = size;
    Loader loader(samples, options);
    const LoadedBatch batch = loader.next();
    if (out.units.empty()) {
      const auto count = static_cast<double>(batch.samples);
      std::int64_t image_tokens = 0;
      for (std::int64_t i = 0; i < batch.input_ids.numel(); ++i)
        image_tokens += batch.input_ids.data<std::int32_t>()[i] == out.config->image_token_id;
      for (const int tiles : batch.num_local_patches) out.crops += tiles / count;
      out.load = seconds_of_loading(loader);
      out.text_tokens = static_cast<double>(batch.input_ids.numel() - image_tokens) / count;
    }
    out.units[size] = time_units(model, input_of(batch), recipe, 3);
    if (out.units.size() == 1) out.optimizer = time_update(model);
    model.store().clear_gradients();
    if (size % 2 != 0) break;
  }
  return out;
}

TrainingPlan plan_training(const Recipe& recipe, std::int64_t ranks) {
  const RecipeTimes times = time_recipe(recipe);
  TrainingPlan plan;
  plan.units = times.units.rbegin()->second;
  plan.meshes = plan_meshes(times.units, recipe.batch, ranks);
  return plan;
}

nlohmann::ordered_json plan_json(const TrainingPlan& plan) {
  nlohmann::ordered_json out;
  for (const UnitCost& unit : plan.units)
    out["units"].push_back({{"name", unit.name},
                            {"parameters", unit.parameters},
                            {"trained", unit.trained},
                            {"forward_seconds", unit.forward},
                            {"backward_seconds", unit.trained ? unit.backward : 0.0}});
  for (const MeshPlan& mesh : plan.meshes)
    out["meshes"].push_back({{"pp", mesh.pp},
                             {"dp", mesh.dp},
                             {"micro_batch", mesh.micro_batch},
                             {"micro_batches", mesh.micro_batches},
                             {"split", mesh.ends},
                             {"seconds", mesh.seconds},
                             {"bubble", mesh.bubble},
                             {"most_parameters", mesh.most_parameters}});
  return out;
}

std::string plan_tables(const TrainingPlan& plan) {
  std::string out =
      "| unit | model | parameters | forward ms | backward ms |\n|---|---|---|---|---|\n";
  for (std::size_t i = 0; i < plan.units.size(); ++i) {
    const UnitCost& unit = plan.units[i];
    out += fmt::format("| {} | {} | {} | {:.2f} | {} |\n", i, unit.name, unit.parameters,
                       1e3 * unit.forward,
                       unit.trained ? fmt::format("{:.2f}", 1e3 * unit.backward) : "frozen");
  }
  out +=
      "\n| mesh.pp | data parallel | batch.micro_batch | of them a step | mesh.split | seconds a "
      "step | waiting | most "
      "parameters a rank |\n|---|---|---|---|---|---|---|---|\n";
  for (const MeshPlan& mesh : plan.meshes)
    out += fmt::format("| {} | {} | {} | {} | [{}] | {:.3f} | {:.0f} % | {} |\n", mesh.pp, mesh.dp,
                       mesh.micro_batch, mesh.micro_batches, fmt::join(mesh.ends, ", "),
                       mesh.seconds, 100 * mesh.bubble, mesh.most_parameters);
  return out;
}

}  // namespace lectern
