// Attention with its gradient; formulas and layouts in core/ops/attention.h.
#pragma once

#include "autograd/variable.h"
#include "core/ops/attention.h"

namespace lectern {

/// qkv [B, T, (H + 2 G) D] -> [B, T, H D]. Saves qkv, the output and one log-sum-exp a row and
/// head. Gradients: qkv, and the relative-position tables where they are given.
Variable attention(const Variable& qkv, const AttentionArgs& args, const Variable& table_h = {},
                   const Variable& table_w = {});

}  // namespace lectern
