#include "data/synthetic/image_effects.h"

#include "core/error.h"
#include "core/random.h"

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

/// out[i] = sum over t of weights[t] x rows[t][i], rounded.
void weigh(const std::vector<const std::uint8_t*>& rows, const std::vector<std::int32_t>& weights,
           std::int64_t width, std::vector<std::int32_t>& sums, std::uint8_t* out) {
  sums.assign(static_cast<std::size_t>(width), 1 << (kWeightBits - 1));
  for (std::size_t t = 0; t < weights.size(); ++t) {
    const std::int32_t weight = weights[t];
    const std::uint8_t* row = rows[t];
    for (std::int64_t x = 0; x < width; ++x) sums[static_cast<std::size_t>(x)] += weight * row[x];
  }
  for (std::int64_t x = 0; x < width; ++x)
    out[x] = static_cast<std::uint8_t>(sums[static_cast<std::size_t>(x)] >> kWeightBits);
}

}  // namespace

GreyPlane coverage_of(const Canvas& canvas) {
  GreyPlane out{canvas.width(), canvas.height(), {}};
  out.values.reserve(static_cast<std::size_t>(out.width * out.height));
  for (std::int64_t y = 0; y < out.height; ++y)
    out.values.insert(out.values.end(), canvas.row(y), canvas.row(y) + out.width);
  return out;
}

void blur(GreyPlane& plane, double sigma) {
  if (!(sigma >= 0 && sigma <= 16))
    fail<ConfigError>(fmt::format("blur: sigma must be in 0 .. 16 pixels, got {}", sigma));
  if (sigma < 0.05 || plane.values.empty()) return;
  const auto weights = gaussian(sigma);
  const auto taps = static_cast<std::int64_t>(weights.size()), radius = taps / 2;
  std::vector<const std::uint8_t*> rows(weights.size());
  std::vector<std::int32_t> sums;
  std::vector<std::uint8_t> padded(static_cast<std::size_t>(plane.width + 2 * radius));
  for (std::int64_t y = 0; y < plane.height; ++y) {
    std::uint8_t* row = plane.values.data() + y * plane.width;
    std::fill_n(padded.begin(), radius, row[0]);
    std::copy_n(row, plane.width, padded.begin() + radius);
    std::fill_n(padded.end() - radius, radius, row[plane.width - 1]);
    for (std::int64_t t = 0; t < taps; ++t) rows[static_cast<std::size_t>(t)] = padded.data() + t;
    weigh(rows, weights, plane.width, sums, row);
  }
  const std::vector<std::uint8_t> from = plane.values;
  for (std::int64_t y = 0; y < plane.height; ++y) {
    for (std::int64_t t = 0; t < taps; ++t)
      rows[static_cast<std::size_t>(t)] =
          from.data() + std::clamp<std::int64_t>(y + t - radius, 0, plane.height - 1) * plane.width;
    weigh(rows, weights, plane.width, sums, plane.values.data() + y * plane.width);
  }
}

Image colour(const GreyPlane& coverage, const Colour& ink, const Colour& paper) {
  std::array<Colour, 256> table;
  for (int value = 0; value < 256; ++value)
    for (std::size_t c = 0; c < 3; ++c)
      table[static_cast<std::size_t>(value)][c] =
          static_cast<std::uint8_t>((paper[c] * (255 - value) + ink[c] * value + 127) / 255);
  Image out;
  out.width = coverage.width;
  out.height = coverage.height;
  out.pixels.resize(3 * coverage.values.size());
  for (std::size_t i = 0; i < coverage.values.size(); ++i) {
    const Colour& pixel = table[coverage.values[i]];
    for (std::size_t c = 0; c < 3; ++c) out.pixels[3 * i + c] = pixel[c];
  }
  return out;
}

void add_noise(Image& image, double deviation, std::uint64_t seed, std::uint64_t index) {
  if (!(deviation > 0)) return;
  // Four bytes of a word: mean 510, variance 4 (256^2 - 1) / 12.
  constexpr double kDeviationOfSum = 147.8;
  constexpr std::uint32_t kStream = 0x6e6f6973;  // apart from the streams of core/random.h
  const auto factor = static_cast<std::int32_t>(std::lround(deviation / kDeviationOfSum * 65536));
  const auto low = [](std::uint64_t value) { return static_cast<std::uint32_t>(value); };
  const auto high = [](std::uint64_t value) { return static_cast<std::uint32_t>(value >> 32); };
  std::array<std::uint32_t, 4> words{};
  const auto pixels = static_cast<std::size_t>(image.width * image.height);
  for (std::size_t i = 0; i < pixels; ++i) {
    if (i % 4 == 0)
      words = philox4x32({low(i / 4), kStream, low(index), high(index)}, {low(seed), high(seed)});
    const std::uint32_t word = words[i % 4];
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
