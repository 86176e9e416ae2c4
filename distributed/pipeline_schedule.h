// The order in which a pipeline stage runs its micro-batches.
//
// A pipeline of S stages (one a rank) runs M micro-batches a step. With V > 1 every rank holds V
// chunks of layers: chunk c of rank s is virtual stage c S + s of the model, so that a micro-batch
// goes round the ranks V times.
//
//   1F1B         at most S - s micro-batches of rank s are between forward and backward; the share
//                of time in which a rank waits is (S - 1) / (M + S - 1) for equal stages.
//                Source: PipeDream-Flush, arXiv 2006.09503; Megatron-LM, arXiv 2104.04473, fig. 4.
//   interleaved  the same with V chunks: the wait falls to (S - 1) / (V M + S - 1), for V times the
//                messages. M must be a multiple of S. Source: arXiv 2104.04473, section 2.2.
//
// Stages whose parameters are all frozen, with nothing trained before them, have no backward: they
// run their forwards one after the other, as the later stages take them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lectern {

enum class PipelineAction : std::uint8_t { forward, backward };

struct PipelineTask {
  PipelineAction action = PipelineAction::forward;
  std::int64_t micro_batch = 0;
  std::int64_t chunk = 0;  ///< 0 to V - 1, of this rank

  bool operator==(const PipelineTask&) const = default;
};

struct PipelineShape {
  std::int64_t stages = 1;         ///< S, ranks
  std::int64_t micro_batches = 1;  ///< M, a step
  std::int64_t chunks = 1;         ///< V, of each rank
  /// Virtual stages [0, first_trained) are frozen and run forward only.
  std::int64_t first_trained = 0;

  std::int64_t virtual_stages() const { return stages * chunks; }
};

/// Tasks of rank `stage` in their order. Throws ConfigError when the shape has a number under 1,
/// first_trained is not in 0 .. virtual stages, or chunks > 1 and micro_batches is not a multiple
/// of stages.
std::vector<PipelineTask> pipeline_schedule(const PipelineShape& shape, std::int64_t stage);

/// Seconds (or any unit) of one micro-batch in each virtual stage.
struct PipelineCosts {
  std::vector<double> forward, backward;  ///< [virtual stages]; backward of frozen ones is unused
  double transfer = 0;                    ///< of one message between neighbours
};

/// When a task ran.
struct PipelineSpan {
  std::int64_t stage = 0;
  PipelineTask task;
  double begin = 0, end = 0;
};

struct PipelineTimeline {
  std::vector<PipelineSpan> spans;      ///< rank after rank, each in its order
  double seconds = 0;                   ///< of the step, from the first task to the last
  double bubble = 0;                    ///< share of ranks x seconds in which a rank waits
  std::vector<std::int64_t> in_flight;  ///< per rank: most micro-batch chunks kept for backward
};

/// Runs the schedule on paper: a task starts when its rank is free and what it needs has arrived.
/// Throws ConfigError when costs do not fit the shape.
PipelineTimeline simulate_pipeline(const PipelineShape& shape, const PipelineCosts& costs);

/// Contiguous split of layers into `parts` with the smallest possible largest sum: the end of each
/// part. Every part gets at least one layer. Throws ConfigError when there are fewer layers than
/// parts or a cost is negative or not finite.
std::vector<std::int64_t> split_by_cost(const std::vector<double>& costs, std::int64_t parts);

}  // namespace lectern
