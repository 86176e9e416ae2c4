#include "autograd/ops/cross_entropy.h"

namespace lectern {

Variable cross_entropy(const Variable& logits, const Tensor& labels) {
  const CrossEntropyResult result = cross_entropy_forward(logits.value(), labels);
  return record("cross_entropy", result.loss, {logits},
                [value = logits.value(), labels, result](const Tensor& grad) {
                  return std::vector<Tensor>{cross_entropy_backward(grad, value, labels, result)};
                });
}

}  // namespace lectern
