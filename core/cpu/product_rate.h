// What this machine's matrix product reaches: the measure that profiles compare with.
#pragma once

#include "core/dtype.h"

namespace lectern {

/// Floating-point operations a second of oneDNN's matrix product C = A B on all threads, measured
/// now: square matrices of `size`, A and B f32 or bf16, C f32, plain layouts; the fastest of
/// several runs. bf16 where oneDNN has no such product (no AVX-512): 0. Throws DTypeError for
/// other dtypes.
double measured_product_rate(DType dtype, std::int64_t size = 2048);

}  // namespace lectern
