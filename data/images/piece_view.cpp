#include "data/images/piece_view.h"

#include "core/error.h"
#include "data/images/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace lectern {

void paste(Image& canvas, const Image& piece, std::int64_t left, std::int64_t top) {
  const std::int64_t begin = std::max<std::int64_t>(left, 0);
  const std::int64_t end = std::min(left + piece.width, canvas.width);
  if (begin >= end) return;
  for (std::int64_t y = std::max<std::int64_t>(top, 0);
       y < std::min(top + piece.height, canvas.height); ++y)
    std::memcpy(canvas.row(y) + 3 * begin, piece.row(y - top) + 3 * (begin - left),
                static_cast<std::size_t>(end - begin) * 3);
}

Image lay_piece(Image piece, double box_height, const PieceView& view) {
  if (piece.empty())
    fail<ShapeError>(
        fmt::format("lay_piece: piece must have pixels, got {} x {}", piece.width, piece.height));
  const auto room = static_cast<double>(view.size - 2 * view.margin);
  const auto width = static_cast<double>(piece.width), height = static_cast<double>(piece.height);
  double scale = 1;
  if (view.text_height > 0)
    scale = static_cast<double>(view.text_height) / std::max(box_height, 1.0);
  scale = std::min({scale, room / width, room / height});
  if (scale != 1)
    piece = resize_bicubic(piece, std::max<std::int64_t>(std::lround(width * scale), 1),
                           std::max<std::int64_t>(std::lround(height * scale), 1));
  Image out = make_image(view.size, view.size);
  const std::int64_t top = view.at_top ? view.margin : (view.size - piece.height) / 2;
  const auto inside = [&](std::int64_t at, std::int64_t length) {
    return std::clamp<std::int64_t>(at, 0, std::max<std::int64_t>(view.size - length, 0));
  };
  paste(out, piece, inside(view.margin + view.shift_x, piece.width),
        inside(top + view.shift_y, piece.height));
  return out;
}

}  // namespace lectern
