// linear with a constant weight, through oneDNN's matrix product and its packed layout.
#pragma once

#include "core/tensor.h"

namespace lectern {

/// y = x W^T + b for f32 matrices as LinearKernels::forward has them, with a packed copy of the
/// weight that is kept as an attachment of its storage. False when there is none (a small weight,
/// or the first use of this version); y is then untouched.
bool linear_packed(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& y);

}  // namespace lectern
