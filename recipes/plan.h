// How to lay a recipe out over ranks: each unit of the model timed once, then every mesh tried on
// paper (distributed/pipeline_schedule.h).
#pragma once

#include "distributed/pipeline_schedule.h"
#include "nn/ocr2/model.h"
#include "recipes/recipe.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace lectern {

/// One unit of the model (nn/ocr2/units.h) on one micro-batch.
struct UnitCost {
  std::string name;
  std::int64_t parameters = 0;
  bool trained = false;              ///< it, or a unit before it: then it has a backward
  double forward = 0, backward = 0;  ///< seconds
};

/// One way to use the ranks.
struct MeshPlan {
  std::int64_t pp = 1, dp = 1;
  std::int64_t micro_batch = 1;      ///< samples (packs) a forward pass
  std::int64_t micro_batches = 1;    ///< of one pipeline, a step
  std::vector<std::int64_t> ends;    ///< units: stage s runs [ends[s - 1], ends[s])
  double seconds = 0;                ///< of a step, exchanges not counted
  double bubble = 0;                 ///< share of it in which a rank waits
  std::int64_t most_parameters = 0;  ///< of one rank
};

struct TrainingPlan {
  std::vector<UnitCost> units;
  std::vector<MeshPlan> meshes;  ///< fastest first
};

/// Times the units of `model` on `input`: the fastest of `repeats` passes after one that warms up.
/// The model's gradients are cleared.
std::vector<UnitCost> time_units(Ocr2Model& model, const Ocr2Input& input, const Recipe& recipe,
                                 int repeats);

/// Units by the micro-batch that they were timed with.
using TimedUnits = std::map<std::int64_t, std::vector<UnitCost>>;

/// Every mesh of `ranks` ranks that the batch allows: pp divides ranks, and the batch divides by dp
/// ranks x micro-batch; each with the micro-batch that makes its step shortest. Stages are cut
/// where their times come nearest to each other.
std::vector<MeshPlan> plan_meshes(const TimedUnits& timed, const BatchRecipe& batch,
                                  std::int64_t ranks);

/// Builds the recipe's model, draws its first batch and plans for `ranks` ranks. Throws what
/// reading the recipe's files throws, and ConfigError when no mesh fits.
TrainingPlan plan_training(const Recipe& recipe, std::int64_t ranks);

nlohmann::ordered_json plan_json(const TrainingPlan& plan);
/// Two Markdown tables: units and meshes.
std::string plan_tables(const TrainingPlan& plan);

}  // namespace lectern
