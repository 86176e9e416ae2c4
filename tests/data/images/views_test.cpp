#include "data/images/views.h"

#include "core/parallel.h"
#include "core/random.h"
#include "tests/data/images/random_image.h"
#include "tests/testing.h"

#include <cmath>
#include <cstring>

namespace lectern {
namespace {

using testing::random_image;
using testing::throws_with;

double keys(double x) {
  x = std::abs(x);
  if (x < 1) return 1.5 * x * x * x - 2.5 * x * x + 1;
  if (x < 2) return -0.5 * x * x * x + 2.5 * x * x - 4 * x + 2;
  return 0;
}

/// One resampled line in doubles, straight from the definition, rounded to bytes.
std::vector<std::uint8_t> resample_line(const std::vector<std::uint8_t>& line, int target) {
  const double scale = static_cast<double>(line.size()) / target, stretch = std::max(scale, 1.0);
  std::vector<std::uint8_t> out;
  for (int j = 0; j < target; ++j) {
    double sum = 0, weights = 0;
    for (std::size_t i = 0; i < line.size(); ++i) {
      const double w = keys((i + 0.5 - (j + 0.5) * scale) / stretch);
      sum += w * line[i];
      weights += w;
    }
    out.push_back(static_cast<std::uint8_t>(std::clamp(std::floor(sum / weights + 0.5), 0., 255.)));
  }
  return out;
}

Image resample_slowly(const Image& image, int width, int height) {
  Image rows = make_image(width, image.height), out = make_image(width, height);
  for (int c = 0; c < 3; ++c) {
    for (int y = 0; y < image.height; ++y) {
      std::vector<std::uint8_t> line;
      for (int x = 0; x < image.width; ++x) line.push_back(image.row(y)[x * 3 + c]);
      line = resample_line(line, width);
      for (int x = 0; x < width; ++x) rows.row(y)[x * 3 + c] = line[x];
    }
    for (int x = 0; x < width; ++x) {
      std::vector<std::uint8_t> line;
      for (int y = 0; y < image.height; ++y) line.push_back(rows.row(y)[x * 3 + c]);
      line = resample_line(line, height);
      for (int y = 0; y < height; ++y) out.row(y)[x * 3 + c] = line[y];
    }
  }
  return out;
}

int largest_difference(const Image& a, const Image& b) {
  if (a.width != b.width || a.height != b.height || a.pixels.size() != b.pixels.size()) return 256;
  int largest = 0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i)
    largest = std::max(largest, std::abs(a.pixels[i] - b.pixels[i]));
  return largest;
}

TEST(ImageViews, ResizeFollowsTheDefinition) {
  struct Case {
    int from_width, from_height, width, height;
  };
  // Shrinking, growing, one direction only, one pixel, widths around the vector sizes.
  for (const Case& c : {Case{61, 47, 20, 13}, Case{9, 7, 40, 33}, Case{50, 31, 50, 12},
                        Case{50, 31, 17, 31}, Case{1, 1, 5, 3}, Case{33, 1, 2, 1},
                        Case{40, 100, 1, 1}, Case{16, 16, 32, 48}, Case{200, 17, 21, 16}}) {
    const Image image = random_image(c.from_width, c.from_height, 7);
    const Image got = resize_bicubic(image, c.width, c.height);
    // Equal but where the 22-bit weights tip an exact half.
    EXPECT_LE(largest_difference(got, resample_slowly(image, c.width, c.height)), 1)
        << c.from_width << "x" << c.from_height << " to " << c.width << "x" << c.height;
  }
}

TEST(ImageViews, ResizeDoesNotDependOnThreads) {
  const Image image = random_image(333, 222, 8);
  const int threads = thread_count();
  set_thread_count(1);
  const Image one = resize_bicubic(image, 100, 150);
  set_thread_count(5);
  const Image five = resize_bicubic(image, 100, 150);
  set_thread_count(threads);
  EXPECT_EQ(one.pixels, five.pixels);
}

TEST(ImageViews, FlatImagesStayFlat) {
  const Image out = resize_bicubic(make_image(97, 31, 200), 41, 77);
  for (const std::uint8_t value : out.pixels) EXPECT_EQ(value, 200);
}

TEST(ImageViews, TilesAreRowMajorAndPaddingIsGrey) {
  Image image = make_image(40, 20, 0);  // left half black, right half white
  for (int y = 0; y < 20; ++y) std::memset(image.row(y) + 60, 255, 60);
  ViewOptions options;
  options.global_size = 30;
  options.tile_size = 10;
  const ImageViews views = make_views(image, options);
  EXPECT_EQ(views.grid, (ViewGrid{2, 1}));
  ASSERT_EQ(views.local.size(), 2u);
  EXPECT_EQ(views.local[0].row(5)[0], 0);
  EXPECT_EQ(views.local[1].row(5)[27], 255);
  // 40 x 20 becomes 30 x 15, floor(15 / 2) = 7 rows of padding above.
  EXPECT_EQ(views.global.row(6)[0], 127);
  EXPECT_EQ(views.global.row(7)[0], 0);
  EXPECT_EQ(views.global.row(21)[0], 0);
  EXPECT_EQ(views.global.row(22)[0], 127);

  options.crop = false;
  EXPECT_TRUE(make_views(image, options).local.empty());
  EXPECT_EQ(make_views(image, options).global.pixels, views.global.pixels);
}

TEST(ImageViews, AThinLineSurvives) {
  const ImageViews views = make_views(make_image(5000, 1, 0));
  EXPECT_EQ(views.global.width, 1024);
  EXPECT_EQ(views.global.height, 1024);
  EXPECT_EQ(views.grid, (ViewGrid{6, 1}));
}

TEST(ImageViews, Normalised) {
  Image image = make_image(2, 1);
  image.pixels = {0, 255, 51, 102, 153, 204};
  EXPECT_EQ(normalised_views({}).dim(0), 0);
  std::vector<float> values(6);
  write_normalised(image, values.data());
  const std::vector<float> want = {-1.0f, -0.2f, 1.0f, 0.2f, -0.6f, 0.6f};
  for (int i = 0; i < 6; ++i) EXPECT_NEAR(values[i], want[i], 1e-6);
  EXPECT_TRUE(throws_with([&] { normalised_views({image}); }, {"views must be 2 x 2", "2 x 1"}));
  const Image square = random_image(4, 4, 9);
  const Tensor two = normalised_views({square, make_image(4, 4, 255)});
  EXPECT_EQ(two.shape(), (Shape{2, 3, 4, 4}));
  EXPECT_EQ(two.data<float>()[3 * 16], 1.0f);
}

TEST(ImageViews, TokenCountsAreTheModels) {
  ViewOptions options;
  options.tokens = [](const ViewGrid& grid) { return std::int64_t{1} + grid.tiles() * 10; };
  EXPECT_EQ(image_token_count(options, {}), 1);
  EXPECT_EQ(image_token_count(options, {3, 2}), 61);
  options.tile_size = 100;
  EXPECT_EQ(image_token_count(options, {}), 1);  // there are no tiles
  EXPECT_TRUE(throws_with([&] { image_token_count(options, {2, 1}); }, {"multiple", "16", "100"}));
  options.global_size = 1000;
  EXPECT_TRUE(throws_with([&] { image_token_count(options, {}); }, {"multiple", "16", "1000"}));
}

TEST(ImageViews, BadSizesAreErrors) {
  EXPECT_TRUE(throws_with([] { choose_grid(0, 5); }, {"choose_grid", "positive"}));
  EXPECT_TRUE(throws_with([] { choose_grid(2000, 5, 768, 3, 2); }, {"min_tiles"}));
  EXPECT_TRUE(throws_with([] { make_views(Image{}); }, {"make_views", "empty"}));
  EXPECT_TRUE(throws_with([] { resize_bicubic(make_image(2, 2), 0, 2); }, {"resize_bicubic"}));
}

}  // namespace
}  // namespace lectern
