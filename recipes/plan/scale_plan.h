// Training runs of many ranks on paper: the time of a step, memory, and bytes on every link, from
// times of a single device and stated speeds of links (`lectern plan --nodes N --gpus G --gpu X`).
//
//   step = pipeline + gradients + update + parameters
//   pipeline    distributed/pipeline_schedule.h over the units' times, those of the exchange of
//               experts' rows and of handing activations on included
//   gradients   reduce-scatter (all-reduce without ZeRO-1), less what the last backward hides
//   update      norm and AdamW over what the rank owns
//   parameters  all-gather of the updated weights (ZeRO-1)
//
// Not in it: loading data, uneven work of ranks, latency, evaluation, checkpoints.
#pragma once

#include "recipes/plan/exchange_plan.h"
#include "recipes/plan/hardware.h"
#include "recipes/plan/plan.h"
#include "recipes/plan/unit_work.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace lectern {

/// What one device takes for micro-batches of one size.
struct MicroBatchCosts {
  std::vector<UnitCost> seconds;
  std::vector<UnitWork> work;
};

struct ScaleInput {
  Hardware hardware;
  Cluster cluster;
  std::map<std::int64_t, MicroBatchCosts> costs;  ///< by micro-batch (rows a pass)
  PageShape page;
  double pages = 1;             ///< of a row
  double page_tokens = 0;       ///< rows of the decoder for one page
  std::int64_t experts = 0;     ///< routed experts of a layer; 0: none
  bool encoder_cached = false;  ///< without a pipeline a frozen encoder is read from its cache
  // Timed instead of counted, on a CPU.
  double update_seconds = 0;      ///< of all trained parameters; 0: counted
  double load_seconds = 0;        ///< of making one page, on a core
  double cores = 0, threads = 1;  ///< of a node, and of a rank; 0: devices do not share cores
};

/// Bytes that one rank holds at the fullest moment of a step, of the stage that holds most.
struct PredictedMemory {
  double weights = 0;      ///< f32
  double copies = 0;       ///< bf16 copies for products
  double gradients = 0;    ///< f32, accumulated over micro-batches
  double buckets = 0;      ///< gradients on their way
  double moments = 0;      ///< AdamW
  double activations = 0;  ///< kept between forward and backward; an estimate
  double workspace = 0;    ///< one block's inner values, the largest gradient, logits
  double total() const {
    return weights + copies + gradients + buckets + moments + activations + workspace;
  }
};

struct ScalePlan {
  MeshShape mesh;
  bool zero = true;
  std::int64_t micro_batch = 1;
  MeshPlan pipeline;  ///< split, schedule; its seconds have the exchanges of experts in them
  // Seconds of a step.
  double experts = 0;    ///< of them, exchanges of rows of the busiest stage that nothing hides
  double gradients = 0;  ///< whole
  double gradients_exposed = 0;
  double update = 0;
  double parameters = 0;
  double seconds = 0;
  // Bytes of a step.
  LinkLoad gradient_load, parameter_load, expert_load, activation_load;
  PredictedMemory memory;
  bool fits = true;
  double pages_a_day = 0, tokens_a_day = 0;
  double utilisation = 0;  ///< operations of forward and backward over peak x time; 0 when timed
};

/// One mesh. Throws ConfigError when the mesh, its pipeline or the batch does not fit the ranks.
ScalePlan plan_scale(const ScaleInput& input, const Recipe& recipe, const MeshRecipe& mesh,
                     std::int64_t micro_batch);

/// Every mesh of the cluster's ranks that batch, units and experts allow, those that fit into the
/// memory first, each kind fastest first.
std::vector<ScalePlan> plan_scales(const ScaleInput& input, const Recipe& recipe);

/// Units by their counted operations on `hardware`.
ScaleInput counted_input(const Recipe& recipe, const Hardware& hardware, const Cluster& cluster,
                         PageShape page);
/// Units by their times on this machine, whose node has `cluster.per_node` ranks of the recipe's
/// threads.
ScaleInput timed_input(const Recipe& recipe, const Cluster& cluster);

/// The share of the peak rate that a line of `lectern bench step` reached, by the same count of
/// operations. Throws IoError or ConfigError naming the file when it is no such line, or one of
/// another model or dtype.
double measured_share(const std::filesystem::path& file, const Recipe& recipe,
                      const Hardware& hardware);

/// The share of the peak rate at which `plan`'s mesh would take in `tokens_a_day`; nothing when
/// exchanges and the update alone take longer.
std::optional<double> implied_share(const ScaleInput& input, const Recipe& recipe,
                                    const ScalePlan& plan, double tokens_a_day);

/// What was taken for granted, a sentence each.
std::vector<std::string> assumptions_of(const ScaleInput& input, const Recipe& recipe);

nlohmann::ordered_json scale_json(const ScaleInput& input, const Recipe& recipe,
                                  const std::vector<ScalePlan>& plans);
/// Markdown: the assumptions, the first plan in full, a table of the others.
std::string scale_report(const ScaleInput& input, const Recipe& recipe,
                         const std::vector<ScalePlan>& plans);

}  // namespace lectern
