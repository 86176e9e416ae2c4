// layer_norm with gradient. Formula and errors: core/ops/layer_norm.h.
#pragma once

#include "autograd/variable.h"

namespace lectern {

/// x [..., C], weight [C], bias [C] -> [..., C]. Saves x, weight, mean and 1/deviation [rows].
Variable layer_norm(const Variable& x, const Variable& weight, const Variable& bias,
                    double epsilon);

}  // namespace lectern
