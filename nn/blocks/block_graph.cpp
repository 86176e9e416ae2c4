#include "nn/blocks/block_graph.h"

#include "nn/low_rank.h"
#include "nn/memory_plan.h"

#include <memory>
#include <utility>

namespace lectern {
namespace {

using Segment = std::function<std::vector<Variable>(const std::vector<Variable>&)>;

std::size_t bytes_of(const std::vector<Variable>& outputs) {
  std::size_t bytes = 0;
  for (const Variable& output : outputs)
    bytes += static_cast<std::size_t>(output.value().numel()) * size_of(output.dtype());
  return bytes;
}

/// segment(inputs) as the plan of the pass, or recomputation of everything, wants it.
std::vector<Variable> outputs_of(const Segment& segment, const std::vector<Variable>& inputs,
                                 const std::vector<Variable>& parameters, MemoryPlan* plan) {
  if (plan == nullptr) return recompute(segment, inputs, parameters);
  const std::size_t block = plan->begin_block();
  if (!plan->recomputes(block)) return segment(inputs);
  std::vector<Variable> outputs = recompute(
      [segment, plan, block](const std::vector<Variable>& in) {
        if (!grad_enabled()) return segment(in);  // the first run
        plan->begin_again(block);
        std::vector<Variable> again = segment(in);
        plan->end_again(block);
        return again;
      },
      inputs, parameters);
  plan->end_block(block, bytes_of(outputs));
  return outputs;
}

}  // namespace

Variable run_block(const BlockPass& pass, const Variable& x,
                   const std::vector<Variable>& parameters, ForwardContext& context) {
  const bool may_run_again = context.recompute_blocks || context.memory_plan != nullptr;
  if (!may_run_again || !grad_enabled()) return pass(x, context);
  // The pass runs again in backward, when `context` may be gone, so it has one of its own. Balance
  // losses are outputs beside the block's: their gradients come back the same way.
  const auto inner = std::make_shared<ForwardContext>(context.settings());
  std::vector<Variable> outputs = outputs_of(
      [pass, inner, dropped = dropout_state()](const std::vector<Variable>& in) {
        const DropoutScope scope(dropped);
        std::vector<Variable> out = {pass(in[0], *inner)};
        const auto losses = std::exchange(inner->balance_losses, {});
        out.insert(out.end(), losses.begin(), losses.end());
        return out;
      },
      {x}, parameters, context.memory_plan);
  PassReport report = std::exchange(static_cast<PassReport&>(*inner), {});
  report.balance_losses.assign(outputs.begin() + 1, outputs.end());
  context.add(std::move(report));
  inner->record_seam = {};  // what is computed again has been heard
  return outputs[0];
}

}  // namespace lectern
