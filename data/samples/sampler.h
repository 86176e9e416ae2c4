// Which piece of training data comes when: a pure function of (seed, position).
//
//   position i of the run -> source s and count c (how often s was drawn before i)
//                         -> epoch c / N_s, place c mod N_s -> unit of the source
//
// Nothing is shuffled in memory and the whole state is one number, so a run resumes anywhere, and
// what a position holds does not depend on the number of ranks, workers or on the batch size.
//
// Sources take turns in rounds of 1024 positions: a source with weight w has round(1024 w / sum) of
// them (largest remainders, at least one), in an order that differs from round to round. Within an
// epoch every unit of a source comes once, in an order given by a keyed permutation.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace lectern {

/// A bijection of 0 .. size-1 chosen by (seed, stream, index): eight rounds of a balanced Feistel
/// network whose round function is Philox, walked until it falls inside the range.
class Permutation {
 public:
  Permutation(std::uint64_t size, std::uint64_t seed, std::uint64_t stream, std::uint64_t index);
  std::uint64_t operator()(std::uint64_t i) const;

 private:
  std::uint64_t encrypt(std::uint64_t i) const;

  std::uint64_t size_;
  int half_bits_ = 1;
  std::array<std::uint32_t, 2> key_{};
  std::array<std::uint32_t, 2> tweak_{};
};

struct SamplerSource {
  std::int64_t units = 0;  // >= 1
  double weight = 1;       // > 0
  /// Units are drawn from windows of this many neighbours, so that the pages which they are cut
  /// from stay in memory; windows come in random order. 0: one window.
  std::int64_t window = 0;
};

struct Draw {
  std::uint64_t position = 0;  // in the run
  int source = 0;
  std::int64_t unit = 0;  // of the source
  std::int64_t epoch = 0;
};

class Sampler {
 public:
  /// Throws ConfigError when there is no source, a source is empty, or a weight is not positive.
  /// `shuffle` false takes each round's sources and each source's units in order (for evaluation).
  Sampler(std::vector<SamplerSource> sources, std::uint64_t seed, bool shuffle = true);

  Draw at(std::uint64_t position) const;
  const std::vector<SamplerSource>& sources() const { return sources_; }
  /// Positions of each round that belong to each source; they sum to kRound.
  const std::vector<int>& shares() const { return shares_; }

  static constexpr std::int64_t kRound = 1024;

 private:
  std::int64_t unit_at(int source, std::int64_t epoch, std::int64_t place) const;

  std::vector<SamplerSource> sources_;
  std::vector<int> shares_;
  std::uint64_t seed_;
  bool shuffle_;
};

}  // namespace lectern
