#include "core/random.h"

#include "core/parallel.h"
#include "core/philox.h"

#include <cmath>
#include <numbers>

namespace lectern {
namespace {

/// FNV-1a, 64 bits: a stable hash of the stream's name.
std::uint64_t hash_name(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return hash;
}

std::array<std::uint32_t, 2> split(std::uint64_t value) {
  return {static_cast<std::uint32_t>(value), static_cast<std::uint32_t>(value >> 32)};
}

/// (0, 1], so that its logarithm is finite.
double open_unit(std::uint32_t word) { return (static_cast<double>(word) + 1.0) * 0x1p-32; }

double box_muller(std::uint32_t a, std::uint32_t b, bool second) {
  const double radius = std::sqrt(-2.0 * std::log(open_unit(a)));
  const double angle = 2.0 * std::numbers::pi * (static_cast<double>(b) * 0x1p-32);
  return radius * (second ? std::sin(angle) : std::cos(angle));
}

}  // namespace

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) {
  const philox::Words words =
      philox::block({{counter[0], counter[1], counter[2], counter[3]}}, key[0], key[1]);
  return {words.word[0], words.word[1], words.word[2], words.word[3]};
}

Random::Random(std::uint64_t seed, std::string_view stream)
    : key_(split(seed)), stream_(split(hash_name(stream))) {}

RandomKey Random::key() const { return {key_[0], key_[1], stream_[0], stream_[1]}; }

std::array<std::uint32_t, 4> Random::block(std::uint64_t index) const {
  const auto low = split(index);
  return philox4x32({low[0], low[1], stream_[0], stream_[1]}, key_);
}

std::uint32_t Random::next() {
  const std::uint64_t at = position_++;
  return block(at / 4)[at % 4];
}

double Random::uniform() { return static_cast<double>(next()) * 0x1p-32; }

std::uint64_t Random::below(std::uint64_t n) {
  // 64 random bits against the largest multiple of n below 2^64: redraw the rare overhang.
  const std::uint64_t limit = ~std::uint64_t{0} - (~std::uint64_t{0} % n);
  for (;;) {
    const std::uint64_t high = next();
    const std::uint64_t value = (high << 32) | next();
    if (value < limit || limit == ~std::uint64_t{0}) return value % n;
  }
}

double Random::normal() {
  const std::uint32_t a = next();
  return box_muller(a, next(), false);
}

void Random::fill_normal(const Tensor& tensor, double mean, double standard_deviation) const {
  check_contiguous(tensor, "fill_normal", "tensor");
  dispatch_floating(tensor.dtype(), "fill_normal", [&]<typename T>() {
    T* out = tensor.data<T>();
    const std::int64_t n = tensor.numel();
    parallel_for((n + 3) / 4, 4096, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const auto words = block(static_cast<std::uint64_t>(i));
        for (std::int64_t k = 0; k < 4 && 4 * i + k < n; ++k) {
          const auto pair = static_cast<std::size_t>(k / 2 * 2);
          const double z = box_muller(words[pair], words[pair + 1], k % 2 == 1);
          out[4 * i + k] = static_cast<T>(mean + standard_deviation * z);
        }
      }
    });
  });
  tensor.mark_modified();
}

void Random::fill_uniform(const Tensor& tensor, double low, double high) const {
  check_contiguous(tensor, "fill_uniform", "tensor");
  dispatch_floating(tensor.dtype(), "fill_uniform", [&]<typename T>() {
    T* out = tensor.data<T>();
    const std::int64_t n = tensor.numel();
    parallel_for((n + 3) / 4, 4096, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const auto words = block(static_cast<std::uint64_t>(i));
        for (std::int64_t k = 0; k < 4 && 4 * i + k < n; ++k)
          out[4 * i + k] =
              static_cast<T>(low + (high - low) * (words[static_cast<std::size_t>(k)] * 0x1p-32));
      }
    });
  });
  tensor.mark_modified();
}

}  // namespace lectern
