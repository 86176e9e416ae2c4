// Window partition and merge with gradients; layouts in core/ops/window.h.
#pragma once

#include "autograd/variable.h"
#include "core/ops/window.h"

namespace lectern {

/// x [B, h, w, C] -> [B nh nw, window window, C], zero-padded at the bottom and the right.
Variable window_partition(const Variable& x, std::int64_t window);
/// The reverse, without the padding: -> [batch, h, w, C].
Variable window_merge(const Variable& windows, std::int64_t window, std::int64_t batch,
                      std::int64_t h, std::int64_t w);

}  // namespace lectern
