#include "data/images/image.h"

#include "core/error.h"
#include "core/io/file.h"
#include "core/io/files.h"
#include "data/images/codecs.h"
#include "data/images/file_kind.h"

#include <algorithm>
#include <cstring>

namespace lectern {

Image make_image(std::int64_t width, std::int64_t height, std::uint8_t value) {
  if (width < 0 || height < 0)
    fail<ShapeError>(
        fmt::format("make_image: width and height must be >= 0, got {} x {}", width, height));
  Image image{width, height, {}};
  image.pixels.assign(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3,
                      value);
  return image;
}

void detail::check_image_size(const std::string& name, std::size_t file_bytes, std::int64_t width,
                              std::int64_t height, std::int64_t max_pixels, double raw_bytes,
                              double best_ratio) {
  if (width <= 0 || height <= 0)
    fail<IoError>(fmt::format("{}: image must not be empty, got {} x {}", name, width, height));
  if (width > max_pixels / height)
    fail<IoError>(fmt::format("{}: image must have at most {} pixels, got {} x {}", name,
                              max_pixels, width, height));
  if (raw_bytes > best_ratio * static_cast<double>(file_bytes))
    fail<IoError>(
        fmt::format("{}: file is truncated or its header lies: {} x {} pixels cannot be "
                    "held by {} bytes",
                    name, width, height, file_bytes));
}

Image decode_image(std::span<const std::uint8_t> bytes, const std::string& name,
                   std::int64_t max_pixels) {
  switch (file_kind(bytes)) {
    case FileKind::png:
      return detail::decode_png(bytes, name, max_pixels);
    case FileKind::jpeg:
      return detail::decode_jpeg(bytes, name, max_pixels);
    case FileKind::pdf:
    case FileKind::other:
      break;
  }
  fail<IoError>(fmt::format("{}: must be a PNG or JPEG image, got {} ({} bytes)", name,
                            describe_file_kind(bytes), bytes.size()));
}

Image read_image(const std::filesystem::path& path, std::int64_t max_pixels) {
  const std::string bytes = read_file(path);
  return decode_image({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()},
                      path.string(), max_pixels);
}

void write_png(const Image& image, const std::filesystem::path& path, int compression) {
  const std::vector<std::uint8_t> bytes = encode_png(image, compression);
  replace_file(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

Image crop(const Image& image, std::int64_t left, std::int64_t top, std::int64_t width,
           std::int64_t height) {
  Image out = make_image(width, height);
  const std::int64_t first = std::clamp<std::int64_t>(left, 0, image.width);
  const std::int64_t last = std::clamp<std::int64_t>(left + width, first, image.width);
  if (first == last) return out;
  const std::int64_t begin = std::clamp<std::int64_t>(top, 0, image.height);
  const std::int64_t end = std::clamp<std::int64_t>(top + height, begin, image.height);
  for (std::int64_t y = begin; y < end; ++y)
    std::memcpy(out.row(y - top) + (first - left) * 3, image.row(y) + first * 3,
                static_cast<std::size_t>(last - first) * 3);
  return out;
}

}  // namespace lectern
