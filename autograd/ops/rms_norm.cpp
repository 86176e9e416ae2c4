#include "autograd/ops/rms_norm.h"

#include "core/ops/rms_norm.h"

namespace lectern {

Variable rms_norm(const Variable& x, const Variable& weight, double epsilon) {
  RmsNormOutput result = rms_norm(x.value(), weight.value(), epsilon);
  const bool need_x = x.requires_grad(), need_weight = weight.requires_grad();
  return record("rms_norm", std::move(result.output), {x, weight},
                [x = x.value(), weight = weight.value(), inverse_rms = result.inverse_rms, need_x,
                 need_weight](const Tensor& grad) -> std::vector<Tensor> {
                  RmsNormGradients gradients =
                      rms_norm_backward(grad, x, weight, inverse_rms, need_x, need_weight);
                  return {gradients.x, gradients.weight};
                });
}

}  // namespace lectern
