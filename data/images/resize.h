// Bicubic resampling of 8-bit images, bit for bit that of Pillow up to 12.3.
#pragma once

#include "data/images/image.h"

namespace lectern {

/// Antialiased bicubic resampling to width x height (aspect ratio not kept).
///
/// Separable: rows first, then columns, with 8-bit rounding in between. Weight of source pixel i
/// for target pixel j, with scale = source / target and s = max(scale, 1):
///   w(i) = cubic((i + 0.5 - (j + 0.5) scale) / s), |...| < 2, normalised to sum 1, then rounded
///   to a multiple of 2^-22;  cubic is Keys' kernel with a = -0.5.
/// Sums are exact integers, so the result does not depend on the thread count. A direction whose
/// size does not change is copied. Throws ShapeError unless all sizes are positive.
/// Pillow 13.0.0 takes columns first where the height shrinks and the width grows or shrinks
/// clearly less, which moved pixels of random images by up to 25 levels; torchvision keeps rows
/// first and stays within 2 of this (1 when shrinking). Source: Pillow's src/libImaging/Resample.c
/// (arithmetic), Keys 1981 (kernel).
Image resize_bicubic(const Image& image, std::int64_t width, std::int64_t height);

}  // namespace lectern
