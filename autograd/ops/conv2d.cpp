#include "autograd/ops/conv2d.h"

#include "core/ops/linear.h"

namespace lectern {

Variable conv2d(const Variable& x, const Variable& weight, const Variable& bias,
                const Conv2dArgs& args) {
  Tensor y = conv2d(x.value(), weight.value(), bias.defined() ? bias.value() : Tensor(), args);
  const bool needs_x = x.requires_grad(), needs_weight = weight.requires_grad();
  const bool needs_bias = bias.requires_grad();
  const Tensor saved_x = needs_weight ? x.value() : Tensor();
  const Tensor saved_weight = needs_x ? weight.value() : Tensor();
  const Shape x_shape = x.shape(), weight_shape = weight.shape();
  return record(
      "conv2d", std::move(y), {x, weight, bias}, [=](const Tensor& grad_y) -> std::vector<Tensor> {
        return {needs_x ? conv2d_grad_x(grad_y, saved_weight, x_shape, args) : Tensor(),
                needs_weight ? conv2d_grad_weight(grad_y, saved_x, weight_shape, args) : Tensor(),
                needs_bias ? linear_grad_bias(grad_y) : Tensor()};
      });
}

}  // namespace lectern
