// The forward and backward passes of one optimizer step on this rank: its micro-batches one after
// the other (plain_step.cpp), or in the order of a pipeline's schedule (pipeline_step.cpp).
#pragma once

#include "data/samples/loader.h"
#include "distributed/pipeline_schedule.h"
#include "nn/model.h"
#include "recipes/train/run_setup.h"
#include "recipes/train/step_totals.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace lectern {

class StepPasses {
 public:
  virtual ~StepPasses() = default;

  /// Takes the step's micro-batches from the loader; their gradients add up in the model. Returns
  /// what this rank alone has counted.
  virtual StepTotals run() = 0;
  /// When the tasks of the last step ran; none without a pipeline.
  virtual std::vector<PipelineSpan> spans() const { return {}; }

 protected:
  explicit StepPasses(RunSetup& run) : run_(run) {}

  ForwardContext context_of_step() const;
  /// Dropout of an adapter, for the passes of a micro-batch.
  DropoutState dropout_of(const LoadedBatch& batch) const;
  /// The loss of a micro-batch as its part of the step's; counts what went into it.
  static Variable add_loss(const ModelLoss& loss, const LoadedBatch& batch, StepTotals& totals);
  /// Adds the routers' balance losses to the loss, and what the pass reported to the totals.
  Variable add_reports(Variable loss, const ForwardContext& context, const LoadedBatch& batch,
                       StepTotals& totals) const;

  RunSetup& run_;
};

std::unique_ptr<StepPasses> make_plain_step(RunSetup& run);
/// Throws ConfigError for a schedule that pipeline_schedule() refuses.
std::unique_ptr<StepPasses> make_pipeline_step(RunSetup& run);

}  // namespace lectern
