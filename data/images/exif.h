// The one thing that is read of a picture's EXIF data: which way up it is.
#pragma once

#include "data/images/image.h"

#include <cstdint>
#include <span>

namespace lectern {

/// Tag 0x0112 (Orientation) of the first directory of EXIF data, which is a TIFF header of either
/// byte order and what follows it: 1 .. 8. 1, upright, also when there is no such tag, another
/// value, or the data are damaged or cut off before it.
int exif_orientation(std::span<const std::uint8_t> tiff);

/// The picture as it is to be seen, when its pixels were stored with this orientation. The row
/// stored first is the top (1, 2), the bottom (3, 4), the left side (5, 8) or the right side (6, 7)
/// of what is seen, its first pixel the left end (1, 4), the right end (2, 3), the top (5, 6) or
/// the bottom (7, 8). Other orientations change nothing.
Image upright(Image stored, int orientation);

}  // namespace lectern
