// What the benchmarks of models agree on. Private to this room.
#pragma once

#include <cmath>
#include <cstdint>

namespace lectern {

/// Pixels of a view's side: those of the released model.
inline constexpr std::int64_t kGlobalSize = 1024, kTileSize = 768;

/// The multiple of `unit` that is nearest to `value`: as many digits as a figure is worth.
inline double rounded(double value, double unit) { return std::round(value / unit) * unit; }

}  // namespace lectern
