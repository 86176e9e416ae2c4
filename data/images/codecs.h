// The two decoders behind decode_image. Private to this room.
#pragma once

#include "data/images/image.h"

namespace lectern::detail {

Image decode_png(std::span<const std::uint8_t> bytes, const std::string& name,
                 std::int64_t max_pixels);
Image decode_jpeg(std::span<const std::uint8_t> bytes, const std::string& name,
                  std::int64_t max_pixels);

/// Throws IoError unless width and height are positive, width x height <= max_pixels, and the file
/// holds at least 1/`best_ratio` of `raw_bytes`, the least that the format can pack them into.
void check_image_size(const std::string& name, std::size_t file_bytes, std::int64_t width,
                      std::int64_t height, std::int64_t max_pixels, double raw_bytes,
                      double best_ratio);

}  // namespace lectern::detail
