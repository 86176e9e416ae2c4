// Rotary position embedding with its gradient; formulas and layouts in core/ops/rope.h.
#pragma once

#include "autograd/variable.h"
#include "core/ops/rope.h"

namespace lectern {

/// qkv [B, T, (H + 2 G) D] -> the same shape, q and k rotated. Saves positions only.
Variable rope(const Variable& qkv, const RopeArgs& args);

}  // namespace lectern
