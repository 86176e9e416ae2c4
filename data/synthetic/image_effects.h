// What happens to print before it becomes a picture: paper, ink, blur, noise, compression.
#pragma once

#include "data/images/image.h"
#include "data/synthetic/text_painter.h"

#include <array>
#include <cstdint>
#include <vector>

namespace lectern {

using Colour = std::array<std::uint8_t, 3>;

/// One number a pixel: values[y * width + x].
struct GreyPlane {
  std::int64_t width = 0, height = 0;
  std::vector<std::uint8_t> values;
};
GreyPlane coverage_of(const Canvas& canvas);

/// Gaussian blur with standard deviation `sigma` pixels, the border repeated. Sums are of integers.
/// Throws ConfigError unless 0 <= sigma <= 16; below 0.05 the plane stays as it is.
void blur(GreyPlane& plane, double sigma);

/// pixel = paper + (ink - paper) x coverage / 255, rounded.
Image colour(const GreyPlane& coverage, const Colour& ink, const Colour& paper);

/// Adds noise of standard deviation about `deviation` grey levels (a sum of four uniform numbers),
/// the same for the three channels of a pixel, and clamps. A function of (seed, index) and size.
void add_noise(Image& image, double deviation, std::uint64_t seed, std::uint64_t index);

/// What is left after JPEG at `quality` (1 .. 100).
Image through_jpeg(const Image& image, int quality);

}  // namespace lectern
