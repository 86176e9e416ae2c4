#include "data/images/views.h"

#include "core/error.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace lectern {
namespace {

constexpr std::uint8_t kPadding = 127;

std::vector<ViewGrid> grids_by_area(int min_tiles, int max_tiles) {
  std::vector<ViewGrid> out;
  for (int columns = 1; columns <= max_tiles; ++columns)
    for (int rows = 1; rows <= max_tiles / columns; ++rows)
      if (columns * rows >= min_tiles) out.push_back({columns, rows});
  std::stable_sort(out.begin(), out.end(),
                   [](const ViewGrid& a, const ViewGrid& b) { return a.tiles() < b.tiles(); });
  return out;
}

Image global_view(const Image& image, std::int64_t size) {
  const double scale =
      static_cast<double>(size) / static_cast<double>(std::max(image.width, image.height));
  const auto scaled = [&](std::int64_t side) {
    // nearbyint rounds half to even, as Python's round() does.
    return std::max<std::int64_t>(
        1, static_cast<std::int64_t>(std::nearbyint(static_cast<double>(side) * scale)));
  };
  const Image small = resize_bicubic(image, scaled(image.width), scaled(image.height));
  Image out = make_image(size, size, kPadding);
  const std::int64_t left = (size - small.width) / 2, top = (size - small.height) / 2;
  for (std::int64_t y = 0; y < small.height; ++y)
    std::memcpy(out.row(top + y) + left * 3, small.row(y),
                static_cast<std::size_t>(small.width) * 3);
  return out;
}

}  // namespace

ViewGrid choose_grid(std::int64_t width, std::int64_t height, std::int64_t tile, int min_tiles,
                     int max_tiles) {
  if (width <= 0 || height <= 0 || tile <= 0)
    fail<ShapeError>(fmt::format("choose_grid: sizes must be positive, got {} x {} with tile {}",
                                 width, height, tile));
  if (min_tiles < 1 || max_tiles < min_tiles || max_tiles > 1024)
    fail<ShapeError>(
        fmt::format("choose_grid: tiles must be 1 <= min_tiles <= max_tiles <= 1024, got {} and {}",
                    min_tiles, max_tiles));
  if (std::max(width, height) <= tile) return {};
  const double ratio = static_cast<double>(width) / static_cast<double>(height);
  const double area = static_cast<double>(width) * static_cast<double>(height);
  ViewGrid best{1, 1};
  double best_difference = std::numeric_limits<double>::infinity();
  for (const ViewGrid& grid : grids_by_area(min_tiles, max_tiles)) {
    const double difference =
        std::abs(ratio - static_cast<double>(grid.columns) / static_cast<double>(grid.rows));
    if (difference < best_difference) {
      best_difference = difference;
      best = grid;
    } else if (difference == best_difference &&
               area > 0.5 * static_cast<double>(tile * tile) * grid.tiles()) {
      best = grid;
    }
  }
  return best;
}

ViewGrid choose_grid(std::int64_t width, std::int64_t height, const ViewOptions& options) {
  if (!options.crop) return {};
  return choose_grid(width, height, options.tile_size, options.min_tiles, options.max_tiles);
}

ImageViews make_views(const Image& image, const ViewOptions& options) {
  if (image.width <= 0 || image.height <= 0)
    fail<ShapeError>(
        fmt::format("make_views: image must not be empty, got {} x {}", image.width, image.height));
  if (options.global_size <= 0 || options.tile_size <= 0)
    fail<ShapeError>(fmt::format("make_views: view sizes must be positive, got {} and {}",
                                 options.global_size, options.tile_size));
  ImageViews views;
  views.grid = choose_grid(image.width, image.height, options);
  views.global = global_view(image, options.global_size);
  if (views.grid.tiles() == 0) return views;
  const std::int64_t tile = options.tile_size;
  const Image canvas = resize_bicubic(image, tile * views.grid.columns, tile * views.grid.rows);
  for (int row = 0; row < views.grid.rows; ++row)
    for (int column = 0; column < views.grid.columns; ++column)
      views.local.push_back(crop(canvas, column * tile, row * tile, tile, tile));
  return views;
}

void write_normalised(const Image& image, float* out) {
  const std::int64_t pixels = image.width * image.height;
  const std::uint8_t* from = image.pixels.data();
  for (std::int64_t i = 0; i < pixels; ++i)
    for (int c = 0; c < 3; ++c)
      out[c * pixels + i] = (static_cast<float>(from[i * 3 + c]) / 255.0f - 0.5f) / 0.5f;
}

Tensor normalised_views(const std::vector<Image>& views) {
  const std::int64_t size = views.empty() ? 0 : views.front().width;
  for (const Image& view : views)
    if (view.width != size || view.height != size)
      fail<ShapeError>(fmt::format("normalised_views: views must be {} x {}, got {} x {}", size,
                                   size, view.width, view.height));
  Tensor out = Tensor::empty({static_cast<std::int64_t>(views.size()), 3, size, size});
  for (std::size_t i = 0; i < views.size(); ++i)
    write_normalised(views[i], out.data<float>() + static_cast<std::int64_t>(i) * 3 * size * size);
  return out;
}

std::int64_t image_token_count(const ViewOptions& options, const ViewGrid& grid) {
  const auto check = [&](std::int64_t size) {
    if (size <= 0 || options.patch_size <= 0 || size % options.patch_size != 0)
      fail<ShapeError>(fmt::format(
          "image_token_count: view size must be a positive multiple of the patch size {}, got {}",
          options.patch_size, size));
  };
  check(options.global_size);
  if (grid.tiles() > 0) check(options.tile_size);
  return options.tokens(grid);
}

}  // namespace lectern
