// Every micro-batch goes through the whole model of this rank, forward and backward.
#include "autograd/backward_observer.h"
#include "core/profile.h"
#include "recipes/train/step_passes.h"

namespace lectern {
namespace {

class PlainStep : public StepPasses {
 public:
  explicit PlainStep(RunSetup& run) : StepPasses(run) {}

  StepTotals run() override {
    StepTotals totals;
    std::int64_t expected = 1;
    for (std::int64_t i = 0; i < expected; ++i) {
      const LoadedBatch batch = run_.loader->next();
      profile_mark("", "wait for batch");
      expected = batch.micro_batches;
      micro_step(batch, totals);
    }
    return totals;
  }

 private:
  void micro_step(const LoadedBatch& batch, StepTotals& totals) {
    ForwardContext context = context_of_step();
    const DropoutScope dropout(dropout_of(batch));
    const ModelInput input = input_of(batch);
    run_.budget.begin_pass(input, batch.micro_batch, batch.micro_batches, context);
    const MediaRows media = run_.features->features_of(batch, input, context);
    Variable total = add_loss(run_.model->loss(input, context, &media), batch, totals);
    total = add_reports(total, context, batch, totals);
    if (total.requires_grad()) {
      const bool is_last = batch.micro_batch + 1 == batch.micro_batches;
      const ObserveBackward sending(is_last ? run_.optimizer.observer() : nullptr);
      total.backward();
    }
    if (const auto plan = run_.budget.end_pass()) run_.log->say(*plan);
  }
};

}  // namespace

std::unique_ptr<StepPasses> make_plain_step(RunSetup& run) {
  return std::make_unique<PlainStep>(run);
}

}  // namespace lectern
