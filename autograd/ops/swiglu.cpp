#include "autograd/ops/swiglu.h"

#include "core/ops/swiglu.h"

namespace lectern {

Variable swiglu(const Variable& gate_up) {
  return record("swiglu", swiglu(gate_up.value()), {gate_up},
                [gate_up = gate_up.value()](const Tensor& grad) -> std::vector<Tensor> {
                  return {swiglu_backward(grad, gate_up)};
                });
}

}  // namespace lectern
