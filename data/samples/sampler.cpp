#include "data/samples/sampler.h"

#include "core/error.h"
#include "core/random.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <utility>

namespace lectern {
namespace {

constexpr int kFeistelRounds = 8;

/// Streams of permutations, so that rounds, windows and units are independent of each other.
enum Stream : std::uint64_t { kRoundOrder = 1, kWindowOrder = 2, kUnitOrder = 3, kOffset = 4 };

std::uint64_t stream_of(Stream kind, int source) {
  return static_cast<std::uint64_t>(kind) << 32 | static_cast<std::uint32_t>(source);
}

std::uint64_t mix(std::uint64_t a, std::uint64_t b, std::uint64_t seed) {
  const auto words =
      philox4x32({static_cast<std::uint32_t>(a), static_cast<std::uint32_t>(a >> 32),
                  static_cast<std::uint32_t>(b), static_cast<std::uint32_t>(b >> 32)},
                 {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  return static_cast<std::uint64_t>(words[0]) << 32 | words[1];
}

/// kRound positions dealt by weight: floors, then one each to the largest remainders.
std::vector<int> deal_positions(const std::vector<SamplerSource>& sources) {
  const auto count = static_cast<std::int64_t>(sources.size());
  double total = 0;
  for (const SamplerSource& source : sources) total += source.weight;
  const double free_positions = static_cast<double>(Sampler::kRound - count);
  std::vector<int> shares;
  std::vector<double> remainders;
  for (const SamplerSource& source : sources) {
    // The guaranteed position is part of the share, not on top of it, where the share allows.
    const double wanted = Sampler::kRound * source.weight / total;
    const double above = std::max(wanted - 1, 0.0);
    shares.push_back(1 + static_cast<int>(std::min(std::floor(above), free_positions)));
    remainders.push_back(above - std::floor(above));
  }
  std::vector<std::size_t> order(sources.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return remainders[a] > remainders[b]; });
  std::int64_t left = Sampler::kRound - std::accumulate(shares.begin(), shares.end(), 0);
  for (std::size_t i = 0; left > 0; i = (i + 1) % order.size(), --left) ++shares[order[i]];
  while (left < 0) {
    --*std::max_element(shares.begin(), shares.end());
    ++left;
  }
  return shares;
}

}  // namespace

Permutation::Permutation(std::uint64_t size, std::uint64_t seed, std::uint64_t stream,
                         std::uint64_t index)
    : size_(size) {
  // The network permutes 2^(2 half_bits) >= size numbers, at most four times too many.
  const int bits = size <= 1 ? 0 : std::bit_width(size - 1);
  half_bits_ = std::max((bits + 1) / 2, 1);
  const std::uint64_t key = mix(stream, index, seed);
  const std::uint64_t tweak = mix(~stream, index, seed);
  key_ = {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)};
  tweak_ = {static_cast<std::uint32_t>(tweak), static_cast<std::uint32_t>(tweak >> 32)};
}

std::uint64_t Permutation::encrypt(std::uint64_t i) const {
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  std::uint64_t left = i >> half_bits_, right = i & mask;
  for (std::uint32_t round = 0; round < kFeistelRounds; ++round) {
    const auto words =
        philox4x32({static_cast<std::uint32_t>(right), round, tweak_[0], tweak_[1]}, key_);
    left = std::exchange(right, left ^ (words[0] & mask));
  }
  return left << half_bits_ | right;
}

std::uint64_t Permutation::operator()(std::uint64_t i) const {
  if (size_ <= 1) return 0;
  do {
    i = encrypt(i);
  } while (i >= size_);
  return i;
}

Sampler::Sampler(std::vector<SamplerSource> sources, std::uint64_t seed, bool shuffle)
    : sources_(std::move(sources)), seed_(seed), shuffle_(shuffle) {
  if (sources_.empty() || sources_.size() > static_cast<std::size_t>(kRound))
    fail<ConfigError>(
        fmt::format("sampler: sources must be 1 .. {}, got {}", kRound, sources_.size()));
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const SamplerSource& source = sources_[i];
    if (source.units < 1)
      fail<ConfigError>(fmt::format("sampler: source {} must have units, got {}", i, source.units));
    if (!(source.weight > 0) || !std::isfinite(source.weight))
      fail<ConfigError>(
          fmt::format("sampler: weight of source {} must be positive, got {}", i, source.weight));
    if (source.window < 0)
      fail<ConfigError>(
          fmt::format("sampler: window of source {} must be >= 0, got {}", i, source.window));
  }
  shares_ = deal_positions(sources_);
}

Draw Sampler::at(std::uint64_t position) const {
  const std::uint64_t round = position / kRound, place = position % kRound;
  Draw draw{position, 0, 0, 0};
  std::uint64_t count = position;  // draws of the source before this one
  if (sources_.size() > 1) {
    // Slot numbers below shares[0] belong to source 0, the next shares[1] to source 1, ...
    const Permutation order(kRound, seed_, stream_of(kRoundOrder, 0), round);
    const auto slot = static_cast<int>(shuffle_ ? order(place) : place);
    int first = 0;
    while (slot >= first + shares_[static_cast<std::size_t>(draw.source)])
      first += shares_[static_cast<std::size_t>(draw.source++)];
    const int share = shares_[static_cast<std::size_t>(draw.source)];
    // The slot's number within its source serves as the count: a round draws each exactly once.
    count = round * static_cast<std::uint64_t>(share) + static_cast<std::uint64_t>(slot - first);
  }
  const auto units =
      static_cast<std::uint64_t>(sources_[static_cast<std::size_t>(draw.source)].units);
  draw.epoch = static_cast<std::int64_t>(count / units);
  draw.unit = unit_at(draw.source, draw.epoch, static_cast<std::int64_t>(count % units));
  return draw;
}

std::int64_t Sampler::unit_at(int source, std::int64_t epoch, std::int64_t place) const {
  if (!shuffle_) return place;
  const SamplerSource& from = sources_[static_cast<std::size_t>(source)];
  const std::int64_t n = from.units;
  const std::int64_t window = from.window == 0 ? n : std::min(from.window, n);
  const std::int64_t windows = n / window;  // whole ones; the rest comes at the end of the epoch
  const auto turn = static_cast<std::uint64_t>(epoch);
  const std::int64_t slot = std::min(place / window, windows);
  std::int64_t chosen = windows, size = n - windows * window;
  if (slot < windows) {
    const Permutation order(static_cast<std::uint64_t>(windows), seed_,
                            stream_of(kWindowOrder, source), turn);
    chosen = static_cast<std::int64_t>(order(static_cast<std::uint64_t>(slot)));
    size = window;
  }
  const Permutation inside(
      static_cast<std::uint64_t>(size), seed_, stream_of(kUnitOrder, source),
      turn * static_cast<std::uint64_t>(windows + 1) + static_cast<std::uint64_t>(chosen));
  const std::int64_t at =
      chosen * window +
      static_cast<std::int64_t>(inside(static_cast<std::uint64_t>(place - slot * window)));
  // Windows begin elsewhere in each epoch, so that other neighbours meet.
  const std::uint64_t shift = mix(stream_of(kOffset, source), turn, seed_);
  return static_cast<std::int64_t>(
      (static_cast<std::uint64_t>(at) + (windows > 1 ? shift % static_cast<std::uint64_t>(n) : 0)) %
      static_cast<std::uint64_t>(n));
}

}  // namespace lectern
