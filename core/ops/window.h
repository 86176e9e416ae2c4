// window: cuts a grid of tokens into square windows, and back (window attention of ViTDet and SAM).
//
// x        [B, h, w, C] f32 or f64, contiguous. It is padded with zeros at the bottom and the right
//          to nh * window by nw * window, nh = ceil(h / window), nw = ceil(w / window).
// windows  [B nh nw, window window, C]; windows row-major over (nh, nw), tokens row-major inside.
// window_merge drops the padding. Each is the other's gradient: padding is a constant, and what is
// cropped away gets zero.
// Throws ShapeError, DTypeError, ConfigError (window < 1). Empty input gives an empty result.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

#include <cstdint>

namespace lectern {

Tensor window_partition(const Tensor& x, std::int64_t window);
/// windows [batch nh nw, window window, C] -> [batch, h, w, C]
Tensor window_merge(const Tensor& windows, std::int64_t window, std::int64_t batch, std::int64_t h,
                    std::int64_t w);

struct WindowKernels {
  void (*partition)(const Tensor& x, std::int64_t window, const Tensor& windows);
  void (*merge)(const Tensor& windows, std::int64_t window, const Tensor& x);
};
KernelTable<WindowKernels>& window_table();

}  // namespace lectern
