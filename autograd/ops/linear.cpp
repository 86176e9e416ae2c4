#include "autograd/ops/linear.h"

#include "autograd/compute_dtype.h"
#include "autograd/weights_constant.h"
#include "core/ops/convert.h"
#include "core/ops/linear.h"

namespace lectern {

Variable linear(const Variable& x, const Variable& weight, const Variable& bias) {
  const Tensor operand = as_operand(x.value()), matrix = as_weight_operand(weight.value());
  Tensor y = linear(operand, matrix, bias.defined() ? bias.value() : Tensor(),
                    weights_are_constant() ? WeightUse::constant : WeightUse::changing);
  const bool needs_x = x.requires_grad(), needs_weight = weight.requires_grad();
  const bool needs_bias = bias.requires_grad();
  const DType dtype = operand.dtype();
  const Tensor saved_x = needs_weight ? operand : Tensor();
  const Tensor saved_weight = needs_x ? matrix : Tensor();
  return record("linear", std::move(y), {x, weight, bias},
                [=](const Tensor& grad_y) -> std::vector<Tensor> {
                  const Tensor grad = dtype == DType::bf16 ? convert(grad_y, dtype) : grad_y;
                  return {needs_x ? linear_grad_x(grad, saved_weight) : Tensor(),
                          needs_weight ? linear_grad_weight(grad, saved_x) : Tensor(),
                          needs_bias ? linear_grad_bias(grad_y) : Tensor()};
                });
}

}  // namespace lectern
