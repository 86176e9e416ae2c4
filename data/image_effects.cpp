#include "data/image_effects.h"

#include "core/error.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace lectern {
namespace {

constexpr int kWeightBits = 16;

/// Weights of a Gaussian at -radius .. radius that sum to 2^16 exactly.
std::vector<std::int32_t> gaussian(double sigma) {
  const auto radius = static_cast<std::int64_t>(std::ceil(3 * sigma));
  std::vector<double> weights;
  double sum = 0;
  for (std::int64_t i = -radius; i <= radius; ++i) {
    weights.push_back(std::exp(-0.5 * static_cast<double>(i * i) / (sigma * sigma)));
    sum += weights.back();
  }
  std::vector<std::int32_t> out;
  std::int32_t left = 1 << kWeightBits;
  for (const double weight : weights) {
    out.push_back(static_cast<std::int32_t>(std::lround(weight / sum * (1 << kWeightBits))));
    left -= out.back();
  }
  out[static_cast<std::size_t>(radius)] += left;
  return out;
}

/// Blurs `count` values that stand `stride` apart, three channels at once.
void blur_line(std::uint8_t* values, std::int64_t count, std::int64_t stride,
               const std::vector<std::int32_t>& weights, std::vector<std::uint8_t>& padded) {
  const auto taps = static_cast<std::int64_t>(weights.size());
  const std::int64_t radius = taps / 2;
  padded.resize(static_cast<std::size_t>(3 * (count + 2 * radius)));
  for (std::int64_t i = 0; i < count + 2 * radius; ++i)
    for (int c = 0; c < 3; ++c)
      padded[static_cast<std::size_t>(3 * i + c)] =
          values[std::clamp<std::int64_t>(i - radius, 0, count - 1) * stride + c];
  for (std::int64_t i = 0; i < count; ++i) {
    std::int32_t sums[3] = {1 << (kWeightBits - 1), 1 << (kWeightBits - 1), 1 << (kWeightBits - 1)};
    for (std::int64_t t = 0; t < taps; ++t)
      for (int c = 0; c < 3; ++c)
        sums[c] += weights[static_cast<std::size_t>(t)] *
                   padded[static_cast<std::size_t>(3 * (i + t) + c)];
    for (int c = 0; c < 3; ++c)
      values[i * stride + c] = static_cast<std::uint8_t>(sums[c] >> kWeightBits);
  }
}

}  // namespace

Image colour(const Canvas& canvas, const Colour& ink, const Colour& paper) {
  std::array<Colour, 256> table;
  for (int coverage = 0; coverage < 256; ++coverage)
    for (std::size_t c = 0; c < 3; ++c)
      table[static_cast<std::size_t>(coverage)][c] =
          static_cast<std::uint8_t>((paper[c] * (255 - coverage) + ink[c] * coverage + 127) / 255);
  Image out;
  out.width = canvas.width();
  out.height = canvas.height();
  out.pixels.resize(static_cast<std::size_t>(3 * out.width * out.height));
  for (std::int64_t y = 0; y < out.height; ++y) {
    const std::uint8_t* from = canvas.row(y);
    std::uint8_t* to = out.row(y);
    for (std::int64_t x = 0; x < out.width; ++x)
      for (std::size_t c = 0; c < 3; ++c)
        to[3 * x + static_cast<std::int64_t>(c)] = table[from[x]][c];
  }
  return out;
}

void blur(Image& image, double sigma) {
  if (!(sigma >= 0 && sigma <= 16))
    fail<ConfigError>(fmt::format("blur: sigma must be in 0 .. 16 pixels, got {}", sigma));
  if (sigma < 0.05 || image.empty()) return;
  const auto weights = gaussian(sigma);
  std::vector<std::uint8_t> padded;
  for (std::int64_t y = 0; y < image.height; ++y)
    blur_line(image.row(y), image.width, 3, weights, padded);
  for (std::int64_t x = 0; x < image.width; ++x)
    blur_line(image.pixels.data() + 3 * x, image.height, 3 * image.width, weights, padded);
}

void add_noise(Image& image, double deviation, Random& random) {
  if (!(deviation > 0)) return;
  // Four bytes of one draw: mean 510, variance 4 (256^2 - 1) / 12.
  constexpr double kDeviationOfSum = 147.8;
  const auto factor = static_cast<std::int32_t>(std::lround(deviation / kDeviationOfSum * 65536));
  const std::int64_t pixels = image.width * image.height;
  for (std::int64_t i = 0; i < pixels; ++i) {
    const std::uint32_t word = random.next();
    const auto sum = static_cast<std::int32_t>((word & 255) + (word >> 8 & 255) +
                                               (word >> 16 & 255) + (word >> 24));
    const std::int32_t added = ((sum - 510) * factor + 32768) >> 16;
    std::uint8_t* pixel = image.pixels.data() + 3 * i;
    for (int c = 0; c < 3; ++c)
      pixel[c] = static_cast<std::uint8_t>(std::clamp<std::int32_t>(pixel[c] + added, 0, 255));
  }
}

Image through_jpeg(const Image& image, int quality) {
  return decode_image(encode_jpeg(image, quality), "JPEG of a synthetic sample");
}

}  // namespace lectern
