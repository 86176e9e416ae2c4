#include "autograd/ops/dropout.h"

#include "core/ops/dropout.h"

namespace lectern {

Variable dropout(const Variable& x, double probability, const RandomKey& key) {
  return record(
      "dropout", dropout(x.value(), probability, key), {x},
      [=](const Tensor& grad) -> std::vector<Tensor> { return {dropout(grad, probability, key)}; });
}

}  // namespace lectern
