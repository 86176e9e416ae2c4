// Any bytes: decode_image gives an image of the size it says, or an IoError; nothing else.
#include "core/error.h"
#include "data/images/image.h"

#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::int64_t kMaxPixels = std::int64_t{1} << 22;
  try {
    const lectern::Image image = lectern::decode_image({data, size}, "fuzz", kMaxPixels);
    if (image.width <= 0 || image.height <= 0 || image.width > kMaxPixels / image.height ||
        image.pixels.size() != static_cast<std::size_t>(image.width * image.height * 3))
      std::abort();
  } catch (const lectern::IoError&) {
  }
  return 0;
}
