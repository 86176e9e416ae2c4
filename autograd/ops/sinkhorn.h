// sinkhorn with gradient. Definition and errors: core/ops/sinkhorn.h.
#pragma once

#include "autograd/variable.h"
#include "core/ops/sinkhorn.h"

namespace lectern {

/// logits [..., n, n] -> [..., n, n]. Saves the logits.
Variable sinkhorn(const Variable& logits, const SinkhornArgs& args);

}  // namespace lectern
