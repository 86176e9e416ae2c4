// swiglu with gradient. Formula and errors: core/ops/swiglu.h.
#pragma once

#include "autograd/variable.h"

namespace lectern {

/// gate_up [..., 2I] (gate columns, then up columns) -> [..., I]. Saves gate_up.
Variable swiglu(const Variable& gate_up);

}  // namespace lectern
