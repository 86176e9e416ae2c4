// In which dtype matrix products read their operands: the one switch of bf16 training.
//
// Inside ComputeDType(DType::bf16) the products (linear, experts, conv2d, linear_cross_entropy,
// attention) round their f32 operands to bf16 and add up in f32. Everything between products stays
// f32: their results, norms, softmax, router, losses, the gradients of parameters, and the
// parameters themselves, of which bf16 copies are kept (core/ops/convert.h). Backward of an
// operation uses the dtype that its forward had, also when it runs outside the scope; so does
// recompute(). f64 is never rounded.
#pragma once

#include "core/tensor.h"

namespace lectern {

/// f32 (operands as they are) or bf16, of this thread.
DType compute_dtype();

/// Sets it while it lives. Throws DTypeError unless f32 or bf16.
class ComputeDType {
 public:
  explicit ComputeDType(DType dtype);
  ~ComputeDType();
  ComputeDType(const ComputeDType&) = delete;
  ComputeDType& operator=(const ComputeDType&) = delete;

 private:
  DType previous_;
};

/// An activation or a gradient as a product is to read it: a bf16 copy of an f32 tensor when
/// compute_dtype() is bf16, else the tensor itself.
Tensor as_operand(const Tensor& x);
/// The same for a parameter, whose copy is kept until its version moves on.
Tensor as_weight_operand(const Tensor& weight);

}  // namespace lectern
