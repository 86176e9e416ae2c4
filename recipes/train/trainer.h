// One stage of training, from a recipe to checkpoints.
#pragma once

#include "distributed/communicator.h"
#include "recipes/recipe/recipe.h"

#include <cstdint>
#include <memory>
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
/// (recipes/log/step_trace.h). SIGTERM, SIGUSR1 and SIGINT save after the current step and return
/// with stopped_by set. Throws ConfigError, IoError, or NumericError when loss or a gradient is not
/// finite, before the update and naming step and parameter.
///
/// With several ranks in `world` all of them call this with the same recipe: the run is that of one
/// rank, shared out (the trace is rank 0's). A signal to any rank stops all after the same step. A
/// fault on any rank ends the processes of all, saying rank, host, step and reason: then this does
/// not return.
TrainingSummary train(const Recipe& recipe, bool resume, bool profile = false,
                      std::shared_ptr<Communicator> world = {});

}  // namespace lectern
