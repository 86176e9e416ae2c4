// What happens to print before it becomes a picture: paper, ink, blur, noise, compression.
#pragma once

#include "core/random.h"
#include "data/image.h"
#include "data/text_painter.h"

#include <array>
#include <cstdint>

namespace lectern {

using Colour = std::array<std::uint8_t, 3>;

/// RGB image of the canvas: pixel = paper + (ink - paper) x coverage / 255, rounded.
Image colour(const Canvas& canvas, const Colour& ink, const Colour& paper);

/// Gaussian blur with standard deviation `sigma` pixels, the border repeated. Sums are of integers.
/// Throws ConfigError unless 0 <= sigma <= 16; 0 leaves the image as it is.
void blur(Image& image, double sigma);

/// Adds noise of standard deviation about `deviation` grey levels (a sum of four uniform numbers),
/// the same for the three channels of a pixel, and clamps.
void add_noise(Image& image, double deviation, Random& random);

/// What is left after JPEG at `quality` (1 .. 100).
Image through_jpeg(const Image& image, int quality);

}  // namespace lectern
