// How long a checkpoint keeps training waiting.
#pragma once

#include "recipes/bench/step.h"

#include <nlohmann/json_fwd.hpp>

#include <filesystem>

namespace lectern {

struct BenchCheckpointArgs {
  BenchStepArgs step;         ///< steps: timed without a checkpoint, and at least as many after one
  std::filesystem::path out;  ///< folder for the checkpoints, which are deleted; its disk is timed
};

/// Times steps without a checkpoint, then saves once while steps go on, then once at once. Fields:
/// step_seconds (median without), stalled_seconds (training stood still for the checkpoint),
/// stalled_share of a step; slower_seconds (what the steps until it was complete took longer than
/// without, the stall included), slower_share; complete_seconds (from begin to COMPLETE),
/// at_once_seconds (with checkpoint.asynchronous = false), checkpoint_bytes, steps_meanwhile.
/// Throws as bench_step().
nlohmann::ordered_json bench_checkpoint(const BenchCheckpointArgs& args);

}  // namespace lectern
