#include "data/images/exif.h"

#include <cstddef>
#include <cstring>
#include <utility>

namespace lectern {
namespace {

constexpr std::uint32_t kOrientationTag = 0x0112;
constexpr std::size_t kEntryBytes = 12;

/// Bytes of a number of this TIFF type, 0 for what is none. The standard has SHORT for the
/// orientation; some writers use BYTE or LONG.
std::size_t type_bytes(std::uint32_t type) {
  constexpr std::uint32_t kByte = 1, kShort = 3, kLong = 4;
  return type == kByte ? 1 : type == kShort ? 2 : type == kLong ? 4 : 0;
}

/// Numbers of a TIFF file, in its byte order. Beyond its end they are 0.
class TiffBytes {
 public:
  explicit TiffBytes(std::span<const std::uint8_t> bytes) : bytes_(bytes) {
    const bool big = bytes.size() >= 2 && bytes[0] == 'M' && bytes[1] == 'M';
    const bool little = bytes.size() >= 2 && bytes[0] == 'I' && bytes[1] == 'I';
    is_big_ = big;
    is_tiff_ = (big || little) && number(2, 2) == 42;
  }
  bool is_tiff() const { return is_tiff_; }
  std::uint32_t number(std::size_t at, std::size_t bytes) const {
    if (at > bytes_.size() || bytes > bytes_.size() - at) return 0;
    std::uint32_t out = 0;
    for (std::size_t i = 0; i < bytes; ++i)
      out = out << 8 | bytes_[at + (is_big_ ? i : bytes - 1 - i)];
    return out;
  }

 private:
  std::span<const std::uint8_t> bytes_;
  bool is_big_ = false, is_tiff_ = false;
};

}  // namespace

int exif_orientation(std::span<const std::uint8_t> tiff) {
  const TiffBytes file(tiff);
  if (!file.is_tiff()) return 1;
  const std::size_t directory = file.number(4, 4), entries = file.number(directory, 2);
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t entry = directory + 2 + i * kEntryBytes;
    if (entry + kEntryBytes > tiff.size()) break;
    if (file.number(entry, 2) != kOrientationTag) continue;
    if (file.number(entry + 4, 4) != 1) return 1;  // how many values
    const std::uint32_t value = file.number(entry + 8, type_bytes(file.number(entry + 2, 2)));
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

Image upright(Image stored, int orientation) {
  if (orientation < 2 || orientation > 8) return stored;
  const std::int64_t width = stored.width, height = stored.height;
  const bool is_turned = orientation >= 5;
  Image out = is_turned ? make_image(height, width) : make_image(width, height);
  // Where the stored picture is read: one pixel on in a row that is seen, one row of these on.
  const bool from_right = orientation == 2 || orientation == 3 || orientation >= 7;
  const bool from_bottom =
      orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const std::int64_t column = from_right ? -3 : 3, row = from_bottom ? -width * 3 : width * 3;
  const std::int64_t start =
      (from_right ? (width - 1) * 3 : 0) + (from_bottom ? (height - 1) * width * 3 : 0);
  const std::int64_t along = is_turned ? row : column, down = is_turned ? column : row;
  for (std::int64_t y = 0; y < out.height; ++y) {
    std::uint8_t* to = out.row(y);
    std::int64_t at = start + y * down;
    for (std::int64_t x = 0; x < out.width; ++x, at += along)
      std::memcpy(to + x * 3, stored.pixels.data() + at, 3);
  }
  return out;
}

}  // namespace lectern
