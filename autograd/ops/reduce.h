// Sums with gradient. Details: core/ops/reduce.h.
#pragma once

#include "autograd/variable.h"

namespace lectern {

/// Sum of all elements, a scalar [].
Variable sum(const Variable& x);
/// Mean of all elements, a scalar []. Throws ShapeError when x is empty.
Variable mean(const Variable& x);

}  // namespace lectern
