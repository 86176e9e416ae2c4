// linear with a constant weight, through oneDNN's matrix product and its packed layout.
#pragma once

#include "core/tensor.h"

namespace lectern {

/// y = x W^T + b for f32 matrices as LinearKernels::forward has them, from a packed copy of the
/// weight: of this use alone, or, from the second use of a version on and while there is room, kept
/// as an attachment of the weight's storage. The bits of y are the same either way. False for a
/// small weight; y is then untouched.
bool linear_packed(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& y);

}  // namespace lectern
