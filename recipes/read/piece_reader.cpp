#include "recipes/read/piece_reader.h"

#include "core/error.h"
#include "data/images/piece_view.h"
#include "data/images/resize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace lectern {
namespace {

constexpr std::int64_t kPadding = 1;  // around a box, as SampleOptions::padding

Image cut(const Image& page, const Box& box) {
  const auto left = static_cast<std::int64_t>(std::floor(box.left)) - kPadding;
  const auto top = static_cast<std::int64_t>(std::floor(box.top)) - kPadding;
  return crop(page, left, top, static_cast<std::int64_t>(std::ceil(box.right)) + kPadding - left,
              static_cast<std::int64_t>(std::ceil(box.bottom)) + kPadding - top);
}

constexpr int kLight = 192;

/// Half of the pixels are at most so light, 0 .. 255 (ITU-R BT.601 luma).
int median_luminance(const Image& page) {
  std::array<std::int64_t, 256> count{};
  for (std::size_t i = 0; i + 2 < page.pixels.size(); i += 3)
    ++count[static_cast<std::size_t>(299 * page.pixels[i] + 587 * page.pixels[i + 1] +
                                     114 * page.pixels[i + 2]) /
            1000];
  const std::int64_t half = (page.width * page.height + 1) / 2;
  std::int64_t below = 0;
  for (int level = 0; level < 256; ++level) {
    below += count[static_cast<std::size_t>(level)];
    if (below >= half) return level;
  }
  return 255;
}

std::size_t count_words(const PageSegments& segments) {
  std::size_t out = 0;
  for (const InkText& line : segments.lines) out += line.words.size();
  return out;
}

}  // namespace

FoundText find_dark_or_light_text(Image page) {
  FoundText out{find_text(page), std::move(page)};
  if (median_luminance(out.page) >= kLight) return out;
  Image inverse = out.page;
  for (std::uint8_t& value : inverse.pixels) value = static_cast<std::uint8_t>(255 - value);
  PageSegments other = find_text(inverse);
  if (count_words(other) > count_words(out.segments)) out = {std::move(other), std::move(inverse)};
  return out;
}

std::vector<ImageViews> piece_views(const Image& level, const std::vector<PagePiece>& pieces,
                                    const ReadingSettings& settings) {
  const PieceView view{.size = settings.global_size,
                       .margin = settings.piece_margin,
                       .text_height = settings.piece_text_height,
                       .at_top = settings.piece_at_top};
  std::vector<ImageViews> out;
  for (const PagePiece& piece : pieces)
    out.push_back(
        {lay_piece(cut(level, piece.box), piece.box.bottom - piece.box.top, view), {}, {}});
  return out;
}

std::string read_by_pieces(Reader& reader, const ReadingSettings& settings, const Image& page) {
  const FoundText found = find_dark_or_light_text(page);
  const std::vector<PagePiece> pieces = cut_pieces(found.segments, settings.piece_width);
  if (pieces.empty()) return "";
  const Image level = level_page(found.page, found.segments.slope);
  return join_pieces(pieces, reader.read_views(piece_views(level, pieces, settings)));
}

Image rescaled(Image picture, double from, double to) {
  if (from == to) return picture;
  const auto side = [&](std::int64_t pixels) {
    return std::max(1.0, std::round(static_cast<double>(pixels) * to / from));
  };
  const double width = side(picture.width), height = side(picture.height);
  if (width * height > static_cast<double>(std::int64_t{1} << 28))
    fail<ShapeError>(fmt::format(
        "rescaled: picture must have at most 2^28 pixels, got {} x {} from {} to {} dpi",
        picture.width, picture.height, from, to));
  return resize_bicubic(picture, static_cast<std::int64_t>(width),
                        static_cast<std::int64_t>(height));
}

}  // namespace lectern
