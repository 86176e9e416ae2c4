#include "autograd/ops/sinkhorn.h"

namespace lectern {

Variable sinkhorn(const Variable& logits, const SinkhornArgs& args) {
  return record("sinkhorn", sinkhorn(logits.value(), args), {logits},
                [logits = logits.value(), args](const Tensor& grad) -> std::vector<Tensor> {
                  return {sinkhorn_backward(grad, logits, args)};
                });
}

}  // namespace lectern
