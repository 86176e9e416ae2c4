#include "recipes/train/step_passes.h"

#include "autograd/ops/elementwise.h"
#include "recipes/train/step_report.h"

#include <algorithm>

namespace lectern {

ForwardContext StepPasses::context_of_step() const {
  const Recipe& recipe = run_.recipe;
  ForwardContext context;
  context.recompute_blocks = recipe.recompute;
  context.stream_interval = recipe.recompute_streams;
  context.want_balance_loss = recipe.moe.balance_loss > 0;
  context.want_stream_statistics = diagnostics_due(recipe, run_.state.step + 1);
  context.selection_bias = run_.state.selection_bias;
  context.expert_exchange = run_.experts ? &*run_.experts : nullptr;
  return context;
}

DropoutState StepPasses::dropout_of(const LoadedBatch& batch) const {
  const bool is_on = run_.recipe.lora && run_.recipe.lora->dropout > 0;
  if (!is_on) return {};
  // Which samples lie in a micro-batch depends on neither ranks nor workers.
  return {true, static_cast<std::uint64_t>(run_.recipe.seed),
          fmt::format("{}/{}", batch.step, batch.sample_keys.at(0))};
}

Variable StepPasses::add_loss(const ModelLoss& loss, const LoadedBatch& batch, StepTotals& totals) {
  totals.loss_sum += loss.loss_sum.value().item();
  totals.trained_tokens += loss.count;
  totals.tokens += batch.input_ids.numel();
  totals.samples += batch.samples;
  totals.work_spread = batch.step_work_spread;
  ++totals.micro_batches;
  return scale(loss.loss_sum,
               1.0 / static_cast<double>(std::max<std::int64_t>(1, batch.step_trained_tokens)));
}

Variable StepPasses::add_reports(Variable loss, const ForwardContext& context,
                                 const LoadedBatch& batch, StepTotals& totals) const {
  totals.add_expert_counts(context.expert_counts);
  for (const StreamStatistics& stack : context.stream_statistics)
    totals.streams[stack.stack] = combined(totals.streams[stack.stack], stack);
  const double layers = static_cast<double>(sparse_layers(*run_.config));
  for (const Variable& balance : context.balance_losses) {
    const double batches = static_cast<double>(batch.micro_batches * run_.mesh.shape().dp);
    totals.balance_sum += balance.value().item() / layers;
    const Variable part = scale(balance, run_.recipe.moe.balance_loss / layers / batches);
    loss = loss.defined() ? add(loss, part) : part;
  }
  return loss;
}

}  // namespace lectern
