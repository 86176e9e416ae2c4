#include "autograd/ops/elementwise.h"

#include "core/ops/elementwise.h"
#include "core/ops/reduce.h"

namespace lectern {

Variable add(const Variable& a, const Variable& b) {
  const bool need_a = a.requires_grad(), need_b = b.requires_grad();
  return record("add", add(a.value(), b.value()), {a, b},
                [need_a, need_b, shape = b.shape()](const Tensor& grad) -> std::vector<Tensor> {
                  Tensor grad_b;
                  if (need_b) grad_b = grad.shape() == shape ? grad : sum_leading(grad, shape);
                  return {need_a ? grad : Tensor(), grad_b};
                });
}

Variable multiply(const Variable& a, const Variable& b) {
  const Tensor other_of_a = a.requires_grad() ? b.value() : Tensor();
  const Tensor other_of_b = b.requires_grad() ? a.value() : Tensor();
  return record("multiply", multiply(a.value(), b.value()), {a, b},
                [other_of_a, other_of_b](const Tensor& grad) -> std::vector<Tensor> {
                  return {other_of_a.defined() ? multiply(grad, other_of_a) : Tensor(),
                          other_of_b.defined() ? multiply(grad, other_of_b) : Tensor()};
                });
}

Variable scale(const Variable& x, double factor) {
  return record(
      "scale", scale(x.value(), factor), {x},
      [factor](const Tensor& grad) -> std::vector<Tensor> { return {scale(grad, factor)}; });
}

Variable gelu(const Variable& x) {
  return record("gelu", gelu(x.value()), {x},
                [x = x.value()](const Tensor& grad) -> std::vector<Tensor> {
                  return {gelu_backward(grad, x)};
                });
}

Variable silu(const Variable& x) {
  return record("silu", silu(x.value()), {x},
                [x = x.value()](const Tensor& grad) -> std::vector<Tensor> {
                  return {silu_backward(grad, x)};
                });
}

}  // namespace lectern
