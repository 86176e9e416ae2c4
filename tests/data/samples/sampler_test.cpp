#include "data/samples/sampler.h"

#include "core/error.h"
#include "tests/testing.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

namespace lectern {
namespace {

using testing::throws_with;

std::vector<std::uint64_t> values_of(const Permutation& permutation, std::uint64_t size) {
  std::vector<std::uint64_t> values;
  for (std::uint64_t i = 0; i < size; ++i) values.push_back(permutation(i));
  return values;
}

TEST(Permutation, IsABijectionOfEverySize) {
  for (const std::uint64_t size : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 100, 255, 257, 1024, 5000}) {
    std::vector<std::uint64_t> values = values_of(Permutation(size, 1, 2, 3), size);
    std::sort(values.begin(), values.end());
    for (std::uint64_t i = 0; i < size; ++i) ASSERT_EQ(values[i], i) << size;
  }
}

TEST(Permutation, DependsOnAllOfItsKey) {
  const auto base = values_of(Permutation(1000, 1, 2, 3), 1000);
  EXPECT_EQ(base, values_of(Permutation(1000, 1, 2, 3), 1000));
  EXPECT_NE(base, values_of(Permutation(1000, 9, 2, 3), 1000));
  EXPECT_NE(base, values_of(Permutation(1000, 1, 9, 3), 1000));
  EXPECT_NE(base, values_of(Permutation(1000, 1, 2, 9), 1000));
}

/// How often each place gets each value over many keys: chi-square of a uniform table.
TEST(Permutation, ShufflesEvenly) {
  constexpr int kSize = 10, kKeys = 5000;
  std::vector<int> counts(kSize * kSize);
  for (std::uint64_t key = 0; key < kKeys; ++key) {
    const Permutation permutation(kSize, 42, 1, key);
    for (int i = 0; i < kSize; ++i)
      ++counts[static_cast<std::size_t>(i * kSize) + permutation(static_cast<std::uint64_t>(i))];
  }
  constexpr double kExpected = static_cast<double>(kKeys) / kSize;
  double chi_square = 0;
  for (const int count : counts)
    chi_square += (count - kExpected) * (count - kExpected) / kExpected;
  // 81 degrees of freedom: mean 81, standard deviation 12.7; six deviations are never seen.
  EXPECT_LT(chi_square, 81 + 6 * 12.7);
  EXPECT_GT(chi_square, 81 - 6 * 12.7);
}

TEST(Permutation, LargeSizesStayInside) {
  const std::uint64_t size = (std::uint64_t{1} << 40) + 12345;
  const Permutation permutation(size, 5, 6, 7);
  std::set<std::uint64_t> seen;
  double sum = 0;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    const std::uint64_t value = permutation(i * 500000000ull);
    ASSERT_LT(value, size);
    seen.insert(value);
    sum += static_cast<double>(value) / static_cast<double>(size);
  }
  EXPECT_EQ(seen.size(), 2000u);
  EXPECT_NEAR(sum / 2000, 0.5, 6 * 0.2887 / std::sqrt(2000.0));
}

TEST(Sampler, EveryUnitOncePerEpochInADifferentOrder) {
  for (const std::int64_t window : {0, 1, 7, 40, 100, 1000}) {
    const Sampler sampler({{100, 1.0, window}}, 3);
    std::vector<std::vector<std::int64_t>> epochs(3);
    for (std::uint64_t i = 0; i < 300; ++i) {
      const Draw draw = sampler.at(i);
      EXPECT_EQ(draw.position, i);
      ASSERT_EQ(draw.epoch, static_cast<std::int64_t>(i / 100));
      epochs[i / 100].push_back(draw.unit);
    }
    EXPECT_NE(epochs[0], epochs[1]);
    EXPECT_NE(epochs[1], epochs[2]);
    for (auto& epoch : epochs) {
      std::sort(epoch.begin(), epoch.end());
      for (std::int64_t i = 0; i < 100; ++i)
        ASSERT_EQ(epoch[static_cast<std::size_t>(i)], i) << window;
    }
  }
}

TEST(Sampler, WindowsKeepNeighboursTogether) {
  constexpr std::int64_t kUnits = 10000, kWindow = 100;
  const Sampler sampler({{kUnits, 1.0, kWindow}}, 11);
  std::set<std::int64_t> starts;
  for (std::uint64_t first = 0; first < kUnits; first += kWindow) {
    std::vector<std::int64_t> units;
    for (std::uint64_t i = 0; i < kWindow; ++i) units.push_back(sampler.at(first + i).unit);
    EXPECT_FALSE(std::is_sorted(units.begin(), units.end()));
    std::sort(units.begin(), units.end());
    const bool wraps = units.front() == 0 && units.back() == kUnits - 1;
    if (!wraps) {
      EXPECT_EQ(units.back() - units.front(), kWindow - 1);
    }
    starts.insert(units.front());
  }
  EXPECT_EQ(starts.size(), static_cast<std::size_t>(kUnits / kWindow));
}

TEST(Sampler, SourcesFollowTheirWeights) {
  const Sampler sampler({{50, 3.0, 0}, {7, 1.0, 0}, {1000, 0.0001, 0}}, 5);
  EXPECT_EQ(std::accumulate(sampler.shares().begin(), sampler.shares().end(), 0), 1024);
  EXPECT_EQ(sampler.shares()[2], 1);
  EXPECT_NEAR(sampler.shares()[0], 768, 1.5);
  std::map<std::pair<int, std::int64_t>, std::map<std::int64_t, int>> drawn;  // by source, epoch
  constexpr std::uint64_t kRounds = 20;
  for (std::uint64_t i = 0; i < kRounds * Sampler::kRound; ++i) {
    const Draw draw = sampler.at(i);
    ++drawn[{draw.source, draw.epoch}][draw.unit];
  }
  // In each source every unit came once in each finished epoch.
  std::vector<std::int64_t> totals(3);
  for (const auto& [key, units] : drawn)
    for (const auto& [unit, count] : units) {
      EXPECT_EQ(count, 1) << key.first << " " << key.second;
      totals[static_cast<std::size_t>(key.first)] += count;
    }
  for (std::size_t s = 0; s < 3; ++s)
    EXPECT_EQ(totals[s], static_cast<std::int64_t>(kRounds) * sampler.shares()[s]);
  EXPECT_EQ((drawn[{0, 0}].size()), 50u);
  EXPECT_EQ((drawn[{1, 3}].size()), 7u);
}

TEST(Sampler, SourcesAreMixedWithinARound) {
  const Sampler sampler({{1000, 1.0, 0}, {1000, 1.0, 0}}, 5);
  int longest = 0, run = 0, last = -1;
  for (std::uint64_t i = 0; i < 1024; ++i) {
    const int source = sampler.at(i).source;
    run = source == last ? run + 1 : 1;
    last = source;
    longest = std::max(longest, run);
  }
  EXPECT_LT(longest, 25);
}

TEST(Sampler, UnshuffledTakesUnitsInOrder) {
  const Sampler sampler({{5, 1.0, 2}}, 5, false);
  for (std::uint64_t i = 0; i < 12; ++i)
    EXPECT_EQ(sampler.at(i).unit, static_cast<std::int64_t>(i % 5));
}

TEST(Sampler, SeedsDiffer) {
  const Sampler a({{1000, 1.0, 0}}, 1), b({{1000, 1.0, 0}}, 2);
  int same = 0;
  for (std::uint64_t i = 0; i < 1000; ++i) same += a.at(i).unit == b.at(i).unit;
  EXPECT_LT(same, 20);
}

TEST(Sampler, BadSourcesAreRefused) {
  EXPECT_TRUE(throws_with([] { Sampler({}, 0); }, {"sampler: sources must be 1 .. 1024, got 0"}));
  EXPECT_TRUE(throws_with([] { Sampler({{0, 1.0, 0}}, 0); }, {"source 0 must have units, got 0"}));
  EXPECT_TRUE(throws_with(
      [] {
        Sampler({{1, 1.0, 0}, {1, 0.0, 0}}, 0);
      },
      {"weight of source 1 must be positive, got 0"}));
  EXPECT_TRUE(throws_with([] { Sampler({{1, std::nan(""), 0}}, 0); }, {"weight of source 0"}));
  EXPECT_TRUE(throws_with([] { Sampler({{1, 1.0, -1}}, 0); }, {"window of source 0", "got -1"}));
  EXPECT_TRUE(throws_with(
      [] {
        Sampler(std::vector<SamplerSource>(1025, {1, 1.0, 0}), 0);
      },
      {"got 1025"}));
}

}  // namespace
}  // namespace lectern
