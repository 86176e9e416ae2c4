// matmul with gradients; see core/ops/matmul.h.
#pragma once

#include "autograd/variable.h"
#include "core/ops/matmul.h"

namespace lectern {

Variable matmul(const Variable& a, const Variable& b, const MatmulArgs& args = {});

}  // namespace lectern
