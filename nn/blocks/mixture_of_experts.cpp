#include "nn/blocks/mixture_of_experts.h"

#include "autograd/ops/elementwise.h"
#include "autograd/ops/exchanged_experts.h"
#include "autograd/ops/experts.h"
#include "autograd/ops/layout.h"
#include "autograd/ops/router.h"

#include <vector>

namespace lectern {
namespace {

/// Router seams of the fixtures: logits, and the chosen experts with their weights, sorted by
/// weight.
void record_router_seams(ForwardContext& context, std::int64_t layer, const Shape& leading,
                         const RouterOutput& routed) {
  if (!context.listens()) return;
  const auto name = [&](const char* what) { return fmt::format("moe.layer{}.{}", layer, what); };
  const auto shaped = [&](const Tensor& tensor) {
    return tensor.view({leading[0], leading[1], tensor.dim(1)});
  };
  context.seam(name("logits"), shaped(routed.logits.value()));
  context.seam(name("topk_weight"), shaped(routed.weights.value()));
  context.seam(name("topk_index"), shaped(routed.indices));
}

}  // namespace

MoeMlp::MoeMlp(ParameterStore& store, const std::string& prefix, std::int64_t layer,
               std::int64_t hidden_size, const MoeArgs& args, double initializer_range)
    : layer_(layer),
      args_(args),
      shared_(store, prefix + "shared_experts.", hidden_size,
              args.shared_experts * args.intermediate_size, initializer_range) {
  const std::int64_t experts = args.routed_experts, rows = args.intermediate_size;
  const auto normal = Initialiser::normal(initializer_range);
  gate_ = store.add_linear_f32(prefix + "gate.weight", {args.routed_experts, hidden_size}, normal);
  std::vector<ParameterPart> gate_up_parts, down_parts;
  for (std::int64_t e = 0; e < experts; ++e) {
    const std::string expert = fmt::format("{}experts.{}.", prefix, e);
    gate_up_parts.push_back({expert + "gate_proj.weight", 0, rows, e});
    gate_up_parts.push_back({expert + "up_proj.weight", rows, 2 * rows, e});
    down_parts.push_back({expert + "down_proj.weight", 0, hidden_size, e});
  }
  const StackShare share{args.expert_rank, args.expert_ranks};
  gate_up_ = LinearStack(store, prefix + "experts.gate_up_proj", {experts, 2 * rows, hidden_size},
                         normal, gate_up_parts, share);
  down_ = LinearStack(store, prefix + "experts.down_proj", {experts, hidden_size, rows}, normal,
                      down_parts, share);
}

Variable MoeMlp::forward(const Variable& x, ForwardContext& context) const {
  const std::int64_t batch = x.dim(0), length = x.dim(1), width = x.dim(2);
  const Variable tokens = view(x, {batch * length, width});
  RouterArgs router_args;
  router_args.top_k = args_.top_k;
  router_args.scaling = args_.scaling;
  if (const auto bias = context.selection_bias.find(layer_); bias != context.selection_bias.end())
    router_args.selection_bias = bias->second;
  const RouterOutput routed = router(tokens, merged(gate_), router_args);
  record_router_seams(context, layer_, x.shape(), routed);
  context.expert_counts[layer_] = routed.counts;
  if (context.want_balance_loss)
    context.balance_losses.push_back(
        balance_loss(routed.probabilities, routed.indices, args_.routed_experts, args_.top_k));
  Variable mixed, shared;
  if (args_.expert_ranks > 1) {
    if (context.expert_exchange == nullptr)
      fail<Error>(fmt::format("MoE layer {}: its experts are on {} ranks and there is no exchange",
                              layer_, args_.expert_ranks));
    mixed = exchanged_experts(tokens, routed.weights, routed.indices, gate_up_.weight(),
                              down_.weight(), args_.routed_experts, *context.expert_exchange,
                              [&] { shared = shared_.forward(tokens); });
  } else {
    mixed = experts(tokens, routed.weights, routed.indices, gate_up_.weight(), down_.weight());
    shared = shared_.forward(tokens);
  }
  return view(add(mixed, shared), {batch, length, width});
}

}  // namespace lectern
