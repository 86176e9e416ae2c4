#include "autograd/ops/router.h"

#include <utility>

namespace lectern {

RouterOutput router(const Variable& x, const Variable& gate_weight, const RouterArgs& args) {
  RouterResult result = router_forward(x.value(), gate_weight.value(), args);
  const Tensor x_kept = gate_weight.requires_grad() ? x.value() : Tensor();
  const Tensor gate_kept = x.requires_grad() ? gate_weight.value() : Tensor();
  RouterResult kept;
  kept.probabilities = result.probabilities;
  kept.indices = result.indices;
  std::vector<Variable> out = record_many(
      "router", {result.weights, result.probabilities, result.logits}, {x, gate_weight},
      [kept, x_kept, gate_kept, scaling = args.scaling](const std::vector<Tensor>& grads) {
        RouterGradients gradients =
            router_backward({grads[0], grads[1], grads[2]}, kept, scaling, x_kept, gate_kept);
        return std::vector<Tensor>{std::move(gradients.x), std::move(gradients.gate_weight)};
      });
  return {out[0], result.indices, out[1], out[2], result.counts};
}

Variable balance_loss(const Variable& probabilities, const Tensor& indices, std::int64_t experts,
                      std::int64_t top_k) {
  check_ndim(probabilities.value(), 2, "balance_loss", "probabilities");
  const std::int64_t tokens = probabilities.dim(0);
  check_shape(probabilities.value(), {tokens, experts}, "balance_loss", "probabilities");
  check_shape(indices, {tokens, top_k}, "balance_loss", "indices");
  const Tensor counts = count_experts(indices, experts);
  return record("balance_loss", balance_loss_forward(probabilities.value(), counts),
                {probabilities}, [counts, tokens](const Tensor& grad) {
                  return std::vector<Tensor>{balance_loss_backward(grad, counts, tokens)};
                });
}

}  // namespace lectern
