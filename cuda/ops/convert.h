// Element copies on the device: any strides and dtypes, and constants. Not an operation of its own:
// Tensor::copy_from, to, contiguous and fill come here through the device backend.
#pragma once

#include "core/tensor.h"

namespace lectern::cuda {

/// Same shape; both on the device.
void convert_strided(const Tensor& from, const Tensor& to);
void fill_elements(const Tensor& x, double value);

}  // namespace lectern::cuda
