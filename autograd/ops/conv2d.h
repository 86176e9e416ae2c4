// conv2d with gradients; see core/ops/conv2d.h.
#pragma once

#include "autograd/variable.h"
#include "core/ops/conv2d.h"

namespace lectern {

/// x [N, H, W, C], weight [O, C, kh, kw], bias [O] or none -> [N, H', W', O]
Variable conv2d(const Variable& x, const Variable& weight, const Variable& bias = {},
                const Conv2dArgs& args = {});

}  // namespace lectern
