#include "data/images/resize.h"

#include "core/error.h"
#include "core/parallel.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace lectern {
namespace {

constexpr int kPrecision = 22;  // fractional bits of a weight
constexpr std::int32_t kHalf = 1 << (kPrecision - 1);
constexpr std::int64_t kRows = 16;  // rows resampled together: one byte each fills a vector

using Bytes = std::uint8_t __attribute__((vector_size(16)));

/// For each target pixel: the first source pixel, how many, and their weights (stride `taps`).
struct Weights {
  std::int64_t taps = 0;
  std::vector<std::int64_t> first, count;
  std::vector<std::int32_t> values;
  const std::int32_t* row(std::int64_t i) const { return values.data() + i * taps; }
};

double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

Weights make_weights(std::int64_t source, std::int64_t target) {
  const double scale = static_cast<double>(source) / static_cast<double>(target);
  const double stretch = std::max(scale, 1.0), support = 2.0 * stretch;
  Weights out;
  out.taps = static_cast<std::int64_t>(std::ceil(support)) * 2 + 1;
  out.first.resize(target);
  out.count.resize(target);
  out.values.assign(target * out.taps, 0);
  std::vector<double> exact(out.taps);
  for (std::int64_t j = 0; j < target; ++j) {
    const double center = (static_cast<double>(j) + 0.5) * scale;
    const auto first = std::max<std::int64_t>(static_cast<std::int64_t>(center - support + 0.5), 0);
    const auto last =
        std::min<std::int64_t>(static_cast<std::int64_t>(center + support + 0.5), source);
    double sum = 0.0;
    for (std::int64_t i = first; i < last; ++i) {
      exact[i - first] = cubic((static_cast<double>(i) - center + 0.5) * (1.0 / stretch));
      sum += exact[i - first];
    }
    out.first[j] = first;
    out.count[j] = last - first;
    for (std::int64_t i = 0; i < last - first; ++i) {
      const double weight = (sum != 0.0 ? exact[i] / sum : exact[i]) * (1 << kPrecision);
      out.values[j * out.taps + i] = static_cast<std::int32_t>(weight + (weight < 0 ? -0.5 : 0.5));
    }
  }
  return out;
}

std::uint8_t to_byte(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kPrecision, 0, 255));
}

/// Transposes 16 x 16 bytes: four rounds of interleaving the upper with the lower eight vectors.
void transpose(Bytes (&rows)[16]) {
  Bytes next[16];
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 8; ++i) {
      next[2 * i] = __builtin_shufflevector(rows[i], rows[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20,
                                            5, 21, 6, 22, 7, 23);
      next[2 * i + 1] = __builtin_shufflevector(rows[i], rows[i + 8], 8, 24, 9, 25, 10, 26, 11, 27,
                                                12, 28, 13, 29, 14, 30, 15, 31);
    }
    std::memcpy(rows, next, sizeof next);
  }
}

/// columns[i * 16 + r] = byte i of row r, for i < bytes. Rows from `rows` on repeat the last one.
void rows_to_columns(const Image& image, std::int64_t y, std::int64_t rows, std::uint8_t* columns) {
  const std::int64_t bytes = image.width * 3;
  for (std::int64_t i = 0; i < bytes; i += 16) {
    const auto size = static_cast<std::size_t>(std::min<std::int64_t>(16, bytes - i));
    Bytes block[16] = {};
    for (std::int64_t r = 0; r < kRows; ++r)
      std::memcpy(&block[r], image.row(y + std::min(r, rows - 1)) + i, size);
    transpose(block);
    std::memcpy(columns + i * kRows, block, size * kRows);
  }
}

void columns_to_rows(const std::uint8_t* columns, Image& image, std::int64_t y, std::int64_t rows) {
  const std::int64_t bytes = image.width * 3;
  for (std::int64_t i = 0; i < bytes; i += 16) {
    const auto size = static_cast<std::size_t>(std::min<std::int64_t>(16, bytes - i));
    Bytes block[16] = {};
    std::memcpy(block, columns + i * kRows, size * kRows);
    transpose(block);
    for (std::int64_t r = 0; r < rows; ++r) std::memcpy(image.row(y + r) + i, &block[r], size);
  }
}

/// Sixteen rows at a time, turned so that the sixteen values of one source byte are neighbours:
/// every step is then one weight times a vector.
Image resize_rows(const Image& image, std::int64_t width) {
  const Weights weights = make_weights(image.width, width);
  Image out{width, image.height, {}};
  out.pixels.resize(static_cast<std::size_t>(width) * static_cast<std::size_t>(image.height) * 3);
  const std::int64_t blocks = (image.height + kRows - 1) / kRows;
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    constexpr std::int64_t kLanes = 3 * kRows;
    std::vector<std::uint8_t> source(image.width * kLanes), target(width * kLanes);
    for (std::int64_t block = begin; block < end; ++block) {
      const std::int64_t y = block * kRows, rows = std::min(kRows, image.height - y);
      rows_to_columns(image, y, rows, source.data());
      for (std::int64_t x = 0; x < width; ++x) {
        std::int32_t sums[kLanes];
        std::fill(sums, sums + kLanes, kHalf);
        const std::int32_t* weight = weights.row(x);
        const std::uint8_t* from = source.data() + weights.first[x] * kLanes;
        for (std::int64_t i = 0; i < weights.count[x]; ++i, from += kLanes)
          for (std::int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += from[lane] * weight[i];
        for (std::int64_t lane = 0; lane < kLanes; ++lane)
          target[x * kLanes + lane] = to_byte(sums[lane]);
      }
      columns_to_rows(target.data(), out, y, rows);
    }
  });
  return out;
}

Image resize_columns(const Image& image, std::int64_t height) {
  const Weights weights = make_weights(image.height, height);
  Image out{image.width, height, {}};
  out.pixels.resize(static_cast<std::size_t>(image.width) * static_cast<std::size_t>(height) * 3);
  parallel_for(height, 4, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t bytes = image.width * 3;
    constexpr std::int64_t kLanes = 64;
    for (std::int64_t y = begin; y < end; ++y) {
      const std::int32_t* weight = weights.row(y);
      const std::int64_t first = weights.first[y], count = weights.count[y];
      std::uint8_t* to = out.row(y);
      std::int64_t x = 0;
      for (; x + kLanes <= bytes; x += kLanes) {
        std::int32_t sums[kLanes];
        std::fill(sums, sums + kLanes, kHalf);
        for (std::int64_t i = 0; i < count; ++i) {
          const std::uint8_t* from = image.row(first + i) + x;
          for (std::int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += from[lane] * weight[i];
        }
        for (std::int64_t lane = 0; lane < kLanes; ++lane) to[x + lane] = to_byte(sums[lane]);
      }
      for (; x < bytes; ++x) {
        std::int32_t sum = kHalf;
        for (std::int64_t i = 0; i < count; ++i) sum += image.row(first + i)[x] * weight[i];
        to[x] = to_byte(sum);
      }
    }
  });
  return out;
}

}  // namespace

Image resize_bicubic(const Image& image, std::int64_t width, std::int64_t height) {
  if (image.width <= 0 || image.height <= 0 || width <= 0 || height <= 0)
    fail<ShapeError>(fmt::format("resize_bicubic: sizes must be positive, got {} x {} to {} x {}",
                                 image.width, image.height, width, height));
  if (image.width == width && image.height == height) return image;
  if (image.width == width) return resize_columns(image, height);
  if (image.height == height) return resize_rows(image, width);
  return resize_columns(resize_rows(image, width), height);
}

}  // namespace lectern
