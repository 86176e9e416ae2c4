// What a run says of a step: progress for the reader, a record of metrics.jsonl when it is due.
#pragma once

#include "recipes/train/run_setup.h"
#include "recipes/train/step_totals.h"

#include <cstdint>

namespace lectern {

/// Layers with routed experts.
std::int64_t sparse_layers(const ModelConfig& config);

/// Whether diagnostics (recipes/train/diagnostics.h) are part of the record of `step`, from 1.
bool diagnostics_due(const Recipe& recipe, std::int64_t step);

/// An optimizer step that is done.
struct StepFigures {
  double gradient_norm = 0;  ///< before clipping
  double learning_rate = 0;
  double seconds = 0;
};

/// `totals` are those of all ranks; gradients are still those of the step. Collective.
void report_step(RunSetup& run, const StepTotals& totals, const StepFigures& figures);

}  // namespace lectern
