#include "autograd/ops/rope.h"

namespace lectern {

Variable rope(const Variable& qkv, const RopeArgs& args) {
  return record("rope", rope(qkv.value(), args), {qkv},
                [args](const Tensor& grad_out) -> std::vector<Tensor> {
                  return {rope_backward(grad_out, args)};
                });
}

}  // namespace lectern
