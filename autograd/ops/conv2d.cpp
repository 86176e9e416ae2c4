#include "autograd/ops/conv2d.h"

#include "autograd/compute_dtype.h"
#include "core/ops/convert.h"
#include "core/ops/linear.h"

namespace lectern {

Variable conv2d(const Variable& x, const Variable& weight, const Variable& bias,
                const Conv2dArgs& args) {
  const Tensor operand = as_operand(x.value()), kernel = as_weight_operand(weight.value());
  Tensor y = conv2d(operand, kernel, bias.defined() ? bias.value() : Tensor(), args);
  const bool needs_x = x.requires_grad(), needs_weight = weight.requires_grad();
  const bool needs_bias = bias.requires_grad();
  const DType dtype = operand.dtype();
  const Tensor saved_x = needs_weight ? operand : Tensor();
  const Tensor saved_weight = needs_x ? kernel : Tensor();
  const Shape x_shape = x.shape(), weight_shape = weight.shape();
  return record(
      "conv2d", std::move(y), {x, weight, bias}, [=](const Tensor& grad_y) -> std::vector<Tensor> {
        const Tensor grad = dtype == DType::bf16 ? convert(grad_y, dtype) : grad_y;
        return {needs_x ? conv2d_grad_x(grad, saved_weight, x_shape, args) : Tensor(),
                needs_weight ? conv2d_grad_weight(grad, saved_x, weight_shape, args) : Tensor(),
                needs_bias ? linear_grad_bias(grad_y) : Tensor()};
      });
}

}  // namespace lectern
