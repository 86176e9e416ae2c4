// How to lay a recipe out over ranks: each unit of the model timed once, then every mesh tried on
// paper (distributed/pipeline_schedule.h).
#pragma once

#include "distributed/pipeline_schedule.h"
#include "nn/model.h"
#include "recipes/recipe/recipe.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace lectern {

/// One unit of the model (nn/model_config.h) on one micro-batch.
struct UnitCost {
  std::string name;
  std::int64_t parameters = 0;
  bool trained = false;              ///< it, or a unit before it: then it has a backward
  double forward = 0, backward = 0;  ///< seconds
};

/// One way to use the ranks.
struct MeshPlan {
  std::int64_t pp = 1, dp = 1;
  std::int64_t micro_batch = 1;    ///< samples (packs) a forward pass
  std::int64_t micro_batches = 1;  ///< of one pipeline, a step
  std::vector<std::int64_t> ends;  ///< units: piece p runs [ends[p - 1], ends[p]), on stage p % pp
  double seconds = 0;              ///< of a step, exchanges not counted
  double bubble = 0;               ///< share of it in which a rank waits
  std::int64_t most_parameters = 0;  ///< of one rank
  PipelineShape shape;
  std::vector<std::int64_t>
      in_flight;  ///< per stage: most micro-batches x pieces kept for backward
};

/// What plan_mesh() may be told beside times.
struct MeshDetails {
  std::int64_t chunks = 1;         ///< pieces of each stage
  std::vector<std::int64_t> ends;  ///< of the pieces; empty: where times come nearest
  /// Seconds that handing what a unit gives to the next stage takes, by unit; empty: none.
  std::vector<double> transfer;
};

/// One mesh on paper. Throws ConfigError as pipeline_schedule() and split_by_cost().
MeshPlan plan_mesh(const std::vector<UnitCost>& units, std::int64_t pp, std::int64_t dp,
                   std::int64_t micro_batches, const MeshDetails& details = {});

struct TrainingPlan {
  std::vector<UnitCost> units;
  std::vector<MeshPlan> meshes;  ///< fastest first
};

/// Times the units of `model` on `input`: the fastest of `repeats` passes after one that warms up.
/// Leaves the model with gradients.
std::vector<UnitCost> time_units(OcrModel& model, const ModelInput& input, const Recipe& recipe,
                                 int repeats);

/// Units by the micro-batch that they were timed with.
using TimedUnits = std::map<std::int64_t, std::vector<UnitCost>>;

/// Every mesh of `ranks` ranks that the batch allows: pp divides ranks, and the batch divides by dp
/// ranks x micro-batch; each with the micro-batch that makes its step shortest. Stages are cut
/// where their times come nearest to each other.
std::vector<MeshPlan> plan_meshes(const TimedUnits& timed, const BatchRecipe& batch,
                                  std::int64_t ranks);

/// What one process of this machine takes for a recipe.
struct RecipeTimes {
  std::shared_ptr<const ModelConfig> config;
  TimedUnits units;
  double optimizer = 0;    ///< seconds of the gradient norm and AdamW over all trained parameters
  double load = 0;         ///< seconds of making one sample
  double text_tokens = 0;  ///< of a sample, padding and all but its image
  double crops = 0;        ///< tiles of a sample
};

/// Builds the recipe's model, draws its first batch and times its units, its update and its loader.
/// Throws what reading the recipe's files throws.
RecipeTimes time_recipe(const Recipe& recipe);

/// Builds the recipe's model, draws its first batch and plans for `ranks` ranks. Throws what
/// reading the recipe's files throws, and ConfigError when no mesh fits.
TrainingPlan plan_training(const Recipe& recipe, std::int64_t ranks);

nlohmann::ordered_json plan_json(const TrainingPlan& plan);
/// Two Markdown tables: units and meshes.
std::string plan_tables(const TrainingPlan& plan);

}  // namespace lectern
