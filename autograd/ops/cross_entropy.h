// cross_entropy with gradient; formula in core/ops/cross_entropy.h.
#pragma once

#include "autograd/variable.h"
#include "core/ops/cross_entropy.h"

namespace lectern {

/// Mean over the rows whose label is not -100; a scalar. logits [N, V], labels i32 [N].
Variable cross_entropy(const Variable& logits, const Tensor& labels);

}  // namespace lectern
