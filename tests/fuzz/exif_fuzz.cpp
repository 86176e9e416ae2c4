// Any bytes as EXIF data: an orientation of 1 .. 8, with which a picture keeps its pixels; put into
// a PNG and a JPEG that is else whole, it never makes these malformed.
#include "core/error.h"
#include "data/images/exif.h"

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

namespace {

using Bytes = std::vector<std::uint8_t>;

void insert(Bytes& file, std::size_t at, const Bytes& what) {
  file.insert(file.begin() + static_cast<std::ptrdiff_t>(at), what.begin(), what.end());
}

/// Behind the header of a PNG.
Bytes in_png(Bytes png, const Bytes& exif) {
  Bytes chunk;
  const auto number = [&](std::uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8)
      chunk.push_back(static_cast<std::uint8_t>(value >> shift));
  };
  number(static_cast<std::uint32_t>(exif.size()));
  for (const char c : std::string_view("eXIf")) chunk.push_back(static_cast<std::uint8_t>(c));
  chunk.insert(chunk.end(), exif.begin(), exif.end());
  number(static_cast<std::uint32_t>(
      crc32(0, chunk.data() + 4, static_cast<unsigned>(chunk.size() - 4))));
  insert(png, 33, chunk);
  return png;
}

/// Behind the first marker of a JPEG.
Bytes in_jpeg(Bytes jpeg, const Bytes& exif) {
  const std::size_t length = exif.size() + 8;
  Bytes segment = {0xff, 0xe1, static_cast<std::uint8_t>(length >> 8),
                   static_cast<std::uint8_t>(length)};
  for (const char c : std::string_view("Exif\0\0", 6))
    segment.push_back(static_cast<std::uint8_t>(c));
  segment.insert(segment.end(), exif.begin(), exif.end());
  insert(jpeg, 2, segment);
  return jpeg;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const lectern::Image plain = [] {
    lectern::Image out = lectern::make_image(3, 2);
    for (std::size_t i = 0; i < out.pixels.size(); ++i)
      out.pixels[i] = static_cast<std::uint8_t>(i * 13);
    return out;
  }();
  static const Bytes png = lectern::encode_png(plain), jpeg = lectern::encode_jpeg(plain, 90);
  const int orientation = lectern::exif_orientation({data, size});
  if (orientation < 1 || orientation > 8) std::abort();
  const lectern::Image turned = lectern::upright(plain, orientation);
  Bytes before = plain.pixels, after = turned.pixels;
  std::sort(before.begin(), before.end());
  std::sort(after.begin(), after.end());
  if (before != after) std::abort();
  const Bytes exif(data, data + std::min<std::size_t>(size, 65000));
  const int seen = lectern::exif_orientation(exif);
  for (const Bytes& file : {in_png(png, exif), in_jpeg(jpeg, exif)})
    if (lectern::decode_image(file, "fuzz").width != (seen >= 5 ? 2 : 3)) std::abort();
  return 0;
}
