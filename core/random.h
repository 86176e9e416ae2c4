// Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011). The value at a position is
// a pure function of (seed, stream, position), so results do not depend on threads, ranks or on
// the order in which anything is drawn.
#pragma once

#include "core/tensor.h"

#include <array>
#include <cstdint>
#include <string_view>

namespace lectern {

/// Four random 32-bit words for a 128-bit counter and a 64-bit key.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

/// What a kernel needs to draw from a stream itself (core/philox.h): words of block i have the
/// counter {i, i >> 32, stream0, stream1}.
struct RandomKey {
  std::uint32_t key0 = 0, key1 = 0, stream0 = 0, stream1 = 0;
};

/// A sequence of draws for one purpose. Streams of different names are independent.
class Random {
 public:
  /// `stream` names the purpose ("init/model.norm.weight", "sampler/epoch-3").
  Random(std::uint64_t seed, std::string_view stream);

  /// Next 32 random bits.
  std::uint32_t next();
  /// Uniform in [0, 1), 32 bits of resolution.
  double uniform();
  /// Uniform integer in [0, n), n >= 1, without modulo bias.
  std::uint64_t below(std::uint64_t n);
  /// Standard normal (Box-Muller).
  double normal();

  /// Fills a floating tensor; element i depends only on (seed, stream, i).
  void fill_normal(const Tensor& tensor, double mean, double standard_deviation) const;
  void fill_uniform(const Tensor& tensor, double low, double high) const;

  RandomKey key() const;

  /// Position in the sequence of next(); set it to continue a saved run.
  std::uint64_t position() const { return position_; }
  void seek(std::uint64_t position) { position_ = position; }

 private:
  std::array<std::uint32_t, 4> block(std::uint64_t index) const;

  std::array<std::uint32_t, 2> key_{};
  std::array<std::uint32_t, 2> stream_{};
  std::uint64_t position_ = 0;
};

}  // namespace lectern
