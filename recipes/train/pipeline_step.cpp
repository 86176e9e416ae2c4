// Micro-batches go through the chunks of the model that this rank has, in the order of the
// pipeline's schedule; distributed/pipeline.h brings activations and their gradients.
#include "distributed/pipeline.h"
#include "recipes/train/step_passes.h"

#include <utility>

namespace lectern {
namespace {

class PipelineStep : public StepPasses, private PipelineModel {
 public:
  explicit PipelineStep(RunSetup& run)
      : StepPasses(run), pipeline_(run.mesh.pipeline(), run.placement.pipeline, run.device) {}

  StepTotals run() override {
    totals_ = {};
    pipeline_.step(*this);
    batches_.clear();
    return std::exchange(totals_, {});
  }

  std::vector<PipelineSpan> spans() const override { return pipeline_.spans(); }

 private:
  /// One chunk of this rank for one micro-batch of the step.
  PipelineOutput forward(std::int64_t chunk, std::int64_t micro_batch,
                         const std::vector<Variable>& inputs) override {
    while (static_cast<std::int64_t>(batches_.size()) <= micro_batch)
      batches_.push_back(run_.loader->next());
    const LoadedBatch& batch = batches_[static_cast<std::size_t>(micro_batch)];
    const ModelInput input = input_of(batch);
    ForwardContext context = context_of_step();
    const DropoutScope dropout(dropout_of(batch));
    UnitRange units = run_.placement.pieces[static_cast<std::size_t>(chunk)];
    std::vector<Variable> received = inputs;
    if (run_.features && units.begin == 0) {
      const MediaRows media = run_.features->features_of(batch, input, context);
      received = {media.global, media.local};
      units.begin = run_.config->first_decoder_unit();
    }
    PieceResult piece = run_piece(*run_.model, units, input, received, context);
    PipelineOutput out;
    out.tensors = std::move(piece.tensors);
    if (piece.loss) out.objective = add_loss(*piece.loss, batch, totals_);
    out.objective = add_reports(out.objective, context, batch, totals_);
    return out;
  }

  Pipeline pipeline_;
  std::vector<LoadedBatch> batches_;  // of the step that the pipeline is in
  StepTotals totals_;                 // of that step
};

}  // namespace

std::unique_ptr<StepPasses> make_pipeline_step(RunSetup& run) {
  return std::make_unique<PipelineStep>(run);
}

}  // namespace lectern
