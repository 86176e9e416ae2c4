#include "autograd/ops/layer_norm.h"

#include "core/ops/layer_norm.h"

namespace lectern {

Variable layer_norm(const Variable& x, const Variable& weight, const Variable& bias,
                    double epsilon) {
  LayerNormOutput result = layer_norm(x.value(), weight.value(), bias.value(), epsilon);
  const bool need_x = x.requires_grad();
  const bool need_affine = weight.requires_grad() || bias.requires_grad();
  const LayerNormSaved saved{x.value(), weight.value(), result.mean, result.inverse_deviation};
  return record("layer_norm", std::move(result.output), {x, weight, bias},
                [saved, need_x, need_affine](const Tensor& grad) -> std::vector<Tensor> {
                  const LayerNormGradients gradients =
                      layer_norm_backward(grad, saved, need_x, need_affine);
                  return {gradients.x, gradients.weight, gradients.bias};
                });
}

}  // namespace lectern
