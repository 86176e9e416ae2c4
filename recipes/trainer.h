// One stage of training, from a recipe to checkpoints.
#pragma once

#include "recipes/recipe.h"

#include <cstdint>
#include <string>

namespace lectern {

struct TrainingSummary {
  std::int64_t steps = 0;  ///< done in total, earlier runs included
  double loss_first = 0, loss_last = 0;
  double seconds = 0;  ///< of this process
  double samples_per_second = 0;
  int stopped_by = 0;      ///< signal that ended the run early, 0 when it is finished
  std::string checkpoint;  ///< newest one
};

/// Trains as the recipe says; with `resume` continues from the newest complete checkpoint of its
/// run folder (from the start when there is none). Writes config.toml, metrics.jsonl, TensorBoard
/// events and checkpoints; with `profile` also trace.json, a Chrome trace of a few steps
/// (recipes/step_trace.h). SIGTERM and SIGINT save after the current step and return with
/// stopped_by set. Throws ConfigError, IoError, or NumericError when loss or a gradient is not
/// finite, before the update and naming step and parameter.
TrainingSummary train(const Recipe& recipe, bool resume, bool profile = false);

}  // namespace lectern
