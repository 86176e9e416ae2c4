#include "autograd/ops/linear.h"

#include "core/ops/linear.h"

namespace lectern {

Variable linear(const Variable& x, const Variable& weight, const Variable& bias) {
  Tensor y = linear(x.value(), weight.value(), bias.defined() ? bias.value() : Tensor(),
                    grad_enabled() ? WeightUse::changing : WeightUse::constant);
  const bool needs_x = x.requires_grad(), needs_weight = weight.requires_grad();
  const bool needs_bias = bias.requires_grad();
  const Tensor saved_x = needs_weight ? x.value() : Tensor();
  const Tensor saved_weight = needs_x ? weight.value() : Tensor();
  return record("linear", std::move(y), {x, weight, bias},
                [=](const Tensor& grad_y) -> std::vector<Tensor> {
                  return {needs_x ? linear_grad_x(grad_y, saved_weight) : Tensor(),
                          needs_weight ? linear_grad_weight(grad_y, saved_x) : Tensor(),
                          needs_bias ? linear_grad_bias(grad_y) : Tensor()};
                });
}

}  // namespace lectern
