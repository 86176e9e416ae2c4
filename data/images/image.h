// Images in memory and their codecs (PNG, JPEG).
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace lectern {

/// 8-bit RGB, row-major, three bytes a pixel: pixels[(y * width + x) * 3 + channel].
struct Image {
  std::int64_t width = 0;
  std::int64_t height = 0;
  std::vector<std::uint8_t> pixels;

  bool empty() const { return pixels.empty(); }
  std::uint8_t* row(std::int64_t y) { return pixels.data() + y * width * 3; }
  const std::uint8_t* row(std::int64_t y) const { return pixels.data() + y * width * 3; }
};

/// A white (or `value`) image.
Image make_image(std::int64_t width, std::int64_t height, std::uint8_t value = 255);

/// Decodes PNG or JPEG (told apart by their first bytes); grey, palette, 16-bit and CMYK become
/// 8-bit RGB, alpha is laid on white, gamma is ignored. A picture whose EXIF data (APP1 of JPEG,
/// eXIf of PNG) say that its pixels lie on their side or in a mirror is turned upright, as every
/// viewer does; damaged EXIF data are ignored. `name` is for messages. Throws IoError naming the
/// file on anything malformed or truncated, when width x height is over `max_pixels`, and when the
/// file is too short for the size that it claims (both before memory is taken).
Image decode_image(std::span<const std::uint8_t> bytes, const std::string& name,
                   std::int64_t max_pixels = std::int64_t{1} << 28);
Image read_image(const std::filesystem::path& path,
                 std::int64_t max_pixels = std::int64_t{1} << 28);

/// PNG bytes; grey images (r = g = b everywhere) are stored with one channel.
/// `compression` is zlib's level, 1 (fast) to 9 (small).
std::vector<std::uint8_t> encode_png(const Image& image, int compression = 6);
/// JPEG bytes at `quality` 1 .. 100, colour at half resolution. Throws ConfigError for another
/// quality and ShapeError for an empty image.
std::vector<std::uint8_t> encode_jpeg(const Image& image, int quality);
/// Throws IoError when the file cannot be written; `path` is then absent or as it was.
void write_png(const Image& image, const std::filesystem::path& path, int compression = 6);

/// The part [left, left+width) x [top, top+height), filled with white where it leaves the image.
Image crop(const Image& image, std::int64_t left, std::int64_t top, std::int64_t width,
           std::int64_t height);

}  // namespace lectern
