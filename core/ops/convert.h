// convert: the same values in the other of the two training dtypes.
//
//   x   [...]  f32 or bf16, any strides
//   out [...]  bf16 or f32, contiguous
// f32 -> bf16 rounds to nearest, ties to even; values beyond the largest bfloat16 become infinite,
// NaN stays NaN. bf16 -> f32 is exact. A tensor that has the dtype already is returned itself.
// Throws DTypeError for any other pair.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

#include <cstddef>

namespace lectern {

Tensor convert(const Tensor& x, DType dtype);

/// A bf16 copy of a parameter, kept with its storage: made on the first call after the storage's
/// version has moved on (once an optimizer step) and shared by all calls until then. `weight` f32,
/// contiguous; a bf16 weight is returned itself.
Tensor bf16_copy_of(const Tensor& weight);

/// Bytes held by such copies in this process.
std::size_t bf16_copy_bytes();

/// x and out contiguous, of equal size and of different dtypes.
struct ConvertKernels {
  void (*forward)(const Tensor& x, const Tensor& out);
};
KernelTable<ConvertKernels>& convert_table();

}  // namespace lectern
