// The image processor: one page becomes a global view and up to six local tiles.
#pragma once

#include "core/tensor.h"
#include "data/images/image.h"
#include "data/images/resize.h"

#include <functional>
#include <vector>

namespace lectern {

/// Local tiles side by side; 0 x 0 when there are none.
struct ViewGrid {
  int columns = 0, rows = 0;
  int tiles() const { return columns * rows; }
  bool operator==(const ViewGrid&) const = default;
};

struct ViewOptions {
  std::int64_t global_size = 1024;  // pixels a side of the global view
  std::int64_t tile_size = 768;     // pixels a side of a local tile
  int min_tiles = 2;
  int max_tiles = 6;
  bool crop = true;              // false: global view only
  std::int64_t patch_size = 16;  // pixels a side of a vision token before compression
  /// Placeholders that a page of this grid takes in the prompt: the model says (view_options() in
  /// recipes/read/reader.h).
  std::function<std::int64_t(const ViewGrid& grid)> tokens;
};

/// The grid for an image of width x height: 0 x 0 when max(width, height) <= tile; else among all
/// columns x rows with min_tiles <= columns * rows <= max_tiles, by area, the one that minimises
/// |width / height - columns / rows|; on an exact tie the later wins if
/// width * height > tile^2 * columns * rows / 2. Throws ShapeError on non-positive sizes or an
/// empty range of tiles. Source: transformers 5.23, get_optimal_tiled_canvas.
ViewGrid choose_grid(std::int64_t width, std::int64_t height, std::int64_t tile = 768,
                     int min_tiles = 2, int max_tiles = 6);
/// The same, and 0 x 0 when options.crop is false.
ViewGrid choose_grid(std::int64_t width, std::int64_t height, const ViewOptions& options);

struct ImageViews {
  Image global;              // global_size x global_size
  std::vector<Image> local;  // tile_size x tile_size each, row-major over the grid
  ViewGrid grid;
};

/// Global: scaled so that the long side is global_size (sides rounded half to even, at least 1),
/// centred on grey 127. Local: the page stretched to grid x tile_size, cut. Both bicubic.
/// Without cropping, transformers makes the global view tile_size large; here it stays global_size.
/// Throws ShapeError on an empty image.
ImageViews make_views(const Image& image, const ViewOptions& options = {});

/// out [3, height, width] f32 = (pixel / 255 - 0.5) / 0.5, what the vision tokenizer takes.
void write_normalised(const Image& image, float* out);
/// The views as [views, 3, size, size] f32. Throws ShapeError unless all are squares of one size.
Tensor normalised_views(const std::vector<Image>& views);

/// options.tokens(grid). Throws ShapeError unless the sizes of the views are positive multiples of
/// patch_size.
std::int64_t image_token_count(const ViewOptions& options, const ViewGrid& grid);

}  // namespace lectern
