#include "nn/blocks/block_graph.h"

#include "nn/memory_plan.h"

namespace lectern {
namespace {

std::size_t bytes_of(const std::vector<Variable>& outputs) {
  std::size_t bytes = 0;
  for (const Variable& output : outputs)
    bytes += static_cast<std::size_t>(output.value().numel()) * size_of(output.dtype());
  return bytes;
}

}  // namespace

std::vector<Variable> block_outputs(const ForwardContext& context, const Segment& segment,
                                    const std::vector<Variable>& inputs,
                                    const std::vector<Variable>& parameters) {
  if (!grad_enabled()) return segment(inputs);
  MemoryPlan* plan = context.memory_plan;
  if (plan == nullptr)
    return context.recompute_blocks ? recompute(segment, inputs, parameters) : segment(inputs);
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

}  // namespace lectern
