// Pictures of noise for tests.
#pragma once

#include "data/images/image.h"
#include "tests/testing.h"

#include <algorithm>
#include <cstdint>

namespace lectern::testing {

/// Normal noise around 128 in every channel.
inline Image random_image(std::int64_t width, std::int64_t height, std::uint64_t seed,
                          float deviation = 90.0f) {
  const Tensor noise = random_tensor({height, width, 3}, seed);
  Image image = make_image(width, height);
  for (std::size_t i = 0; i < image.pixels.size(); ++i)
    image.pixels[i] = static_cast<std::uint8_t>(
        std::clamp(128.0f + deviation * noise.data<float>()[i], 0.0f, 255.0f));
  return image;
}

}  // namespace lectern::testing
