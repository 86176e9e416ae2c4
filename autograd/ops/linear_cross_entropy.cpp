#include "autograd/ops/linear_cross_entropy.h"

#include "autograd/compute_dtype.h"
#include "core/ops/linear_cross_entropy.h"

namespace lectern {

LinearCrossEntropyResult linear_cross_entropy(const Variable& hidden, const Variable& weight,
                                              const Tensor& labels) {
  const bool recording = grad_enabled();
  const LinearCrossEntropyTensors result = linear_cross_entropy_forward(
      as_operand(hidden.value()), as_weight_operand(weight.value()), labels,
      recording && hidden.requires_grad(), recording && weight.requires_grad());
  Variable loss = record(
      "linear_cross_entropy", result.loss_sum, {hidden, weight},
      [grad_hidden = result.grad_hidden, grad_weight = result.grad_weight](const Tensor& grad) {
        // In place: this closure is the only owner of the two, and runs once.
        std::vector<Tensor> grads = {grad_hidden, grad_weight};
        for (const Tensor& tensor : grads)
          if (tensor.defined()) scale_in_place(tensor, grad);
        return grads;
      });
  return {std::move(loss), result.count};
}

}  // namespace lectern
