#include "autograd/compute_dtype.h"

#include "core/ops/convert.h"

#include <utility>

namespace lectern {
namespace {

thread_local DType current = DType::f32;

bool rounds(const Tensor& x) { return current == DType::bf16 && x.dtype() == DType::f32; }

}  // namespace

DType compute_dtype() { return current; }

ComputeDType::ComputeDType(DType dtype) : previous_(current) {
  if (dtype != DType::f32 && dtype != DType::bf16)
    fail<DTypeError>(
        fmt::format("ComputeDType: dtype must be f32 or bf16, got {}", name_of(dtype)));
  current = dtype;
}
ComputeDType::~ComputeDType() { current = previous_; }

Tensor as_operand(const Tensor& x) { return rounds(x) ? convert(x, DType::bf16) : x; }

Tensor as_weight_operand(const Tensor& weight) {
  if (!rounds(weight)) return weight;
  return weight.is_contiguous() ? bf16_copy_of(weight) : convert(weight, DType::bf16);
}

}  // namespace lectern
