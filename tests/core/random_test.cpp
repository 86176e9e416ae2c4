#include "core/random.h"

#include "core/parallel.h"
#include "tests/testing.h"

#include <array>
#include <cmath>
#include <cstring>
#include <set>
#include <vector>

namespace lectern {
namespace {

using Words = std::array<std::uint32_t, 4>;

// The known-answer vectors of Random123 1.x (tests/kat_vectors, philox4x32 10).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

std::vector<std::uint32_t> draw(Random random, int count) {
  std::vector<std::uint32_t> out;
  for (int i = 0; i < count; ++i) out.push_back(random.next());
  return out;
}

TEST(Random, SequencesDependOnSeedAndStream) {
  EXPECT_EQ(draw(Random(1, "a"), 50), draw(Random(1, "a"), 50));
  const auto a = draw(Random(1, "a"), 1000), b = draw(Random(1, "b"), 1000);
  const auto c = draw(Random(2, "a"), 1000);
  int same = 0;
  for (std::size_t i = 0; i < a.size(); ++i) same += (a[i] == b[i]) + (a[i] == c[i]);
  EXPECT_EQ(same, 0);
  EXPECT_EQ(std::set<std::uint32_t>(a.begin(), a.end()).size(), a.size());
}

TEST(Random, StreamsAreUncorrelated) {
  constexpr std::int64_t kCount = 1 << 16;
  const Tensor x = Tensor::empty({kCount}, DType::f64), y = Tensor::empty({kCount}, DType::f64);
  Random(7, "one").fill_normal(x, 0, 1);
  Random(7, "two").fill_normal(y, 0, 1);
  double sum = 0;
  for (std::int64_t i = 0; i < kCount; ++i) sum += x.data<double>()[i] * y.data<double>()[i];
  EXPECT_LT(std::abs(sum / kCount), 5 / std::sqrt(double(kCount)));
}

TEST(Random, SeekContinues) {
  Random random(3, "s");
  for (int i = 0; i < 13; ++i) random.next();
  const auto at = random.position();
  const auto rest = draw(random, 20);
  Random resumed(3, "s");
  resumed.seek(at);
  EXPECT_EQ(draw(resumed, 20), rest);
}

TEST(Random, FillDoesNotDependOnThreadsOrLength) {
  const int before = thread_count();
  const Tensor one = Tensor::empty({100'003}), four = Tensor::empty({100'003});
  const Tensor shorter = Tensor::empty({50'001});
  const auto fill = [](const Tensor& t, bool normal) {
    if (normal) {
      Random(5, "w").fill_normal(t, 1, 2);
    } else {
      Random(5, "w").fill_uniform(t, -1, 3);
    }
  };
  for (const bool normal : {true, false}) {
    set_thread_count(1);
    fill(one, normal);
    set_thread_count(4);
    fill(four, normal);
    fill(shorter, normal);
    EXPECT_EQ(std::memcmp(one.raw(), four.raw(), one.bytes()), 0);
    EXPECT_EQ(std::memcmp(one.raw(), shorter.raw(), shorter.bytes()), 0);
  }
  set_thread_count(before);
}

struct Moments {
  double mean, deviation, fourth;
};
Moments moments(const Tensor& t) {
  const auto n = double(t.numel());
  double mean = 0, second = 0, fourth = 0;
  for (std::int64_t i = 0; i < t.numel(); ++i) mean += t.data<double>()[i] / n;
  for (std::int64_t i = 0; i < t.numel(); ++i) {
    const double d = t.data<double>()[i] - mean;
    second += d * d / n;
    fourth += d * d * d * d / n;
  }
  return {mean, std::sqrt(second), fourth / (second * second)};
}

TEST(Random, Distributions) {
  const Tensor t = Tensor::empty({1 << 20}, DType::f64);
  // Five standard errors of each estimate at 2^20 draws.
  Random(11, "n").fill_normal(t, 3, 2);
  const Moments normal = moments(t);
  EXPECT_NEAR(normal.mean, 3, 0.01);
  EXPECT_NEAR(normal.deviation, 2, 0.007);
  EXPECT_NEAR(normal.fourth, 3, 0.025);
  Random(11, "u").fill_uniform(t, -1, 3);
  const Moments uniform = moments(t);
  EXPECT_NEAR(uniform.mean, 1, 0.006);
  EXPECT_NEAR(uniform.deviation, 4 / std::sqrt(12.0), 0.003);
  EXPECT_NEAR(uniform.fourth, 1.8, 0.01);
  for (std::int64_t i = 0; i < t.numel(); ++i) {
    ASSERT_GE(t.data<double>()[i], -1);
    ASSERT_LT(t.data<double>()[i], 3);
  }
}

TEST(Random, BelowIsUniform) {
  Random random(13, "below");
  std::array<int, 7> counts{};
  for (int i = 0; i < 70'000; ++i) ++counts[random.below(7)];
  for (const int count : counts) EXPECT_NEAR(count, 10'000, 500);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(random.below(1), 0u);
  for (int i = 0; i < 100; ++i) EXPECT_LT(random.below((1ull << 63) + 1), (1ull << 63) + 1);
}

TEST(Random, Errors) {
  EXPECT_TRUE(testing::throws_with(
      [] {
        Random(1, "x").fill_normal(Tensor::zeros({2, 3}).transpose(0, 1), 0, 1);
      },
      {"fill_normal: tensor must be contiguous"}));
  EXPECT_TRUE(testing::throws_with(
      [] { Random(1, "x").fill_uniform(Tensor::zeros({2}, DType::i32), 0, 1); },
      {"fill_uniform: dtype must be f32 or f64, got i32"}));
}

}  // namespace
}  // namespace lectern
