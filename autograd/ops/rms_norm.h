// rms_norm with gradient. Formula and errors: core/ops/rms_norm.h.
#pragma once

#include "autograd/variable.h"

namespace lectern {

/// x [..., C], weight [C] -> [..., C]. Saves x, weight and 1/rms [rows].
Variable rms_norm(const Variable& x, const Variable& weight, double epsilon);

}  // namespace lectern
