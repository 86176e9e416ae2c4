// dropout with its gradient; see core/ops/dropout.h.
#pragma once

#include "autograd/variable.h"
#include "core/random.h"

namespace lectern {

/// x [...] f32 or f64 -> the same shape. Nothing is saved for backward, which draws again.
Variable dropout(const Variable& x, double probability, const RandomKey& key);

}  // namespace lectern
