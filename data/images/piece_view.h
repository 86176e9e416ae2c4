// How a piece that was cut from a page lies in the view that a model sees. Training samples
// (data/samples/sample.h) and reading (recipes/read/piece_reader.h) both come here, so that they
// look the same.
#pragma once

#include "data/images/image.h"

#include <cstdint>

namespace lectern {

struct PieceView {
  std::int64_t size = 128;       // pixels a side of the view
  std::int64_t margin = 4;       // white left of the piece, and above it when it is at the top
  std::int64_t text_height = 0;  // the piece is scaled so that its box is so high; 0: as it is
  bool at_top = false;           // false: in the middle of the height
  std::int64_t shift_x = 0, shift_y = 0;  // moves it, but not out of the view
};

/// A white view with the piece in it. A piece that is larger than the view without its margins is
/// made smaller. `box_height` is that of the text's box, without the padding that the piece has
/// around it. Throws ShapeError on an empty piece.
Image lay_piece(Image piece, double box_height, const PieceView& view);

/// Lays `piece` on `canvas` with its corner at (left, top); what leaves the canvas is cut off.
void paste(Image& canvas, const Image& piece, std::int64_t left, std::int64_t top);

}  // namespace lectern
