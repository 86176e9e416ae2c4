#include "autograd/ops/experts.h"

#include "autograd/compute_dtype.h"
#include "core/ops/experts.h"

#include <memory>
#include <utility>

namespace lectern {

Variable experts(const Variable& x, const Variable& weights, const Tensor& indices,
                 const Variable& gate_up, const Variable& down) {
  const ExpertsWanted wanted = {x.requires_grad(), weights.requires_grad(), gate_up.requires_grad(),
                                down.requires_grad()};
  const bool keep = grad_enabled() && (wanted.x || wanted.weights || wanted.gate_up || wanted.down);
  const ExpertsInput input = {as_operand(x.value()), weights.value(), indices,
                              as_weight_operand(gate_up.value()), as_weight_operand(down.value())};
  ExpertsResult result = experts_forward(input, keep);
  Tensor out = std::move(result.out);
  result.out = Tensor();
  if (!keep) return Variable(std::move(out));
  // Shared: std::function copies what it holds, and the order is several vectors.
  auto kept = std::make_shared<const ExpertsResult>(std::move(result));
  return record("experts", std::move(out), {x, weights, gate_up, down},
                [input, kept, wanted](const Tensor& grad) {
                  ExpertsGradients g = experts_backward(grad, input, *kept, wanted);
                  return std::vector<Tensor>{std::move(g.x), std::move(g.weights),
                                             std::move(g.gate_up), std::move(g.down)};
                });
}

}  // namespace lectern
