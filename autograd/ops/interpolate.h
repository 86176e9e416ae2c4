// Resizing with gradient, for position tables. Formulas and errors: core/ops/interpolate.h.
#pragma once

#include "autograd/variable.h"

#include <cstdint>

namespace lectern {

/// x [N, H, W, C] -> [N, height, width, C], antialiased bicubic (a = -1/2). Returns x itself when
/// the sizes are equal. Saves nothing. Throws ShapeError unless x has four dimensions and all sizes
/// are 1 or more.
Variable interpolate_bicubic(const Variable& x, std::int64_t height, std::int64_t width);

/// table [L, C] -> [length, C], linear along L. Returns the table itself when length is L.
Variable interpolate_linear(const Variable& table, std::int64_t length);

}  // namespace lectern
