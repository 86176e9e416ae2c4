// linear through oneDNN's matrix product: plain weights for large products, packed for constant
// ones.
#pragma once

#include "core/tensor.h"

namespace lectern {

/// y = x W^T + b for f32 matrices as LinearKernels::forward has them. False when oneDNN is not the
/// faster way for this shape; y is then untouched. `pack` allows a packed copy, kept as an
/// attachment of the weight's storage.
bool linear_onednn(const Tensor& x, const Tensor& weight, const Tensor& bias, bool pack,
                   const Tensor& y);

}  // namespace lectern
