// conv2d in f32 through oneDNN; arguments as in Conv2dKernels.
#pragma once

#include "core/tensor.h"

namespace lectern {

void conv2d_forward_onednn(const Tensor& x, const Tensor& weight, const Tensor& bias, int stride,
                           int padding, const Tensor& out);
void conv2d_grad_x_onednn(const Tensor& grad_y, const Tensor& weight, int stride, int padding,
                          const Tensor& out);

}  // namespace lectern
