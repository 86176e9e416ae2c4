// patchify with gradients; see core/ops/patchify.h.
#pragma once

#include "autograd/variable.h"

namespace lectern {

/// pixels [N, C, S1, S2] -> [N, S1 / p, S2 / p, C p p]
Variable patchify(const Variable& pixels, int patch_size);

}  // namespace lectern
