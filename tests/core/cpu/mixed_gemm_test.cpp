// f32 rows times a bf16 weight: against naive sums in double, at sizes around every tile, with rows
// further apart than they are long and weights at odd addresses.
#include "core/cpu/mixed_gemm.h"

#include "core/parallel.h"
#include "tests/testing.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace lectern {
namespace {

constexpr float kMixedGuard = 12345.0F;

std::size_t index_of(std::int64_t i) { return static_cast<std::size_t>(i); }

struct MixedProblem {
  /// `round_x`: x holds bf16 values, so that rounding it again changes nothing.
  MixedProblem(std::int64_t m, std::int64_t n, std::int64_t k, bool has_bias, std::int64_t gap,
               bool round_x)
      : args{m, n, k, k + gap, k + gap, n + gap} {
    const Tensor random_x = testing::random_tensor({m * args.ldx + 1}, 1);
    const Tensor random_w = testing::random_tensor({n * args.ldw + 2}, 2);
    const Tensor random_b = testing::random_tensor({n + 1}, 3);
    for (std::int64_t i = 0; i < random_x.numel(); ++i) {
      const float value = random_x.data<float>()[i];
      x.push_back(round_x ? static_cast<float>(BFloat16(value)) : value);
    }
    for (std::int64_t i = 0; i < random_w.numel(); ++i)
      w.emplace_back(BFloat16(random_w.data<float>()[i]));
    if (has_bias) bias.assign(random_b.data<float>(), random_b.data<float>() + n);
  }

  std::vector<float> run() const {
    std::vector<float> y(index_of(args.m * args.ldy + 1), kMixedGuard);
    // One element into the array: two bytes beside any vector's alignment.
    mixed_gemm(args, x.data(), w.data() + 1, bias.empty() ? nullptr : bias.data(), y.data());
    return y;
  }

  /// |error| <= relative * sum |x w| + what summing k products in f32 in any order may lose.
  void check(double relative = 0) const {
    const std::vector<float> y = run();
    const double eps = std::numeric_limits<float>::epsilon() * static_cast<double>(args.k + 2);
    for (std::int64_t i = 0; i < args.m; ++i) {
      for (std::int64_t j = 0; j < args.n; ++j) {
        double want = bias.empty() ? 0.0 : bias[index_of(j)], magnitude = std::abs(want);
        for (std::int64_t p = 0; p < args.k; ++p) {
          const double product = static_cast<double>(x[index_of(i * args.ldx + p)]) *
                                 static_cast<float>(w[index_of(1 + j * args.ldw + p)]);
          want += product;
          magnitude += std::abs(product);
        }
        ASSERT_LE(std::abs(y[index_of(i * args.ldy + j)] - want), (eps + relative) * magnitude)
            << i << "," << j << " of " << args.m << "x" << args.n << "x" << args.k;
      }
      for (std::int64_t j = args.n; j < args.ldy; ++j)
        ASSERT_EQ(y[index_of(i * args.ldy + j)], kMixedGuard) << "wrote beside row " << i;
    }
  }

  MixedGemmArgs args;
  std::vector<float> x, bias;
  std::vector<BFloat16> w;
};

TEST(MixedGemm, FewRowsAreExact) {
  for (std::int64_t m = 1; m <= kExactRows; ++m)
    for (const std::int64_t n : {1, 3, 4, 5, 34})
      for (const std::int64_t k : {1, 2, 31, 32, 33, 64, 95, 1280})
        for (const std::int64_t gap : {0, 7}) MixedProblem(m, n, k, n % 2 == 0, gap, false).check();
}

TEST(MixedGemm, LongRows) {  // longer than the distance at which the next rows are asked for
  for (const std::int64_t m : {1, 3, 8}) MixedProblem(m, 9, 5001, true, 3, false).check();
  MixedProblem(7, 2003, 65, true, 0, false).check();  // enough columns for every thread
}

TEST(MixedGemm, ManyRowsOfValuesThatFitBFloat16) {
  for (const std::int64_t m : {9, 12, 13, 47, 66})
    for (const std::int64_t n : {1, 4, 7, 130})
      for (const std::int64_t k : {1, 31, 32, 33, 100})
        for (const std::int64_t gap : {0, 5}) MixedProblem(m, n, k, n % 2 == 1, gap, true).check();
  MixedProblem(150, 40, 4500, true, 1, true).check();  // several passes over k and blocks of rows
  MixedProblem(2100, 37, 70, false, 0, true).check();
}

/// Rounding x to 8 significant bits changes each product by at most 2^-9 of itself.
TEST(MixedGemm, ManyRowsRoundX) {
  MixedProblem(40, 33, 300, true, 2, false).check(std::ldexp(1.0, -9) * 1.01);
}

TEST(MixedGemm, NoInnerDimensionGivesTheBias) {
  for (const std::int64_t m : {2, 11}) {
    const MixedProblem problem(m, 3, 0, true, 0, false);
    const std::vector<float> y = problem.run();
    for (std::int64_t i = 0; i < 3 * m; ++i)
      EXPECT_EQ(y[index_of(i)], problem.bias[index_of(i % 3)]);
  }
  MixedProblem(0, 3, 4, true, 0, false).run();
  MixedProblem(3, 0, 4, false, 0, false).run();
}

TEST(MixedGemm, ARowDoesNotDependOnTheOthers) {
  const MixedProblem problem(kExactRows, 70, 333, true, 0, false);
  const std::vector<float> together = problem.run();
  for (std::int64_t m = 1; m < kExactRows; ++m) {
    MixedProblem fewer = problem;
    fewer.args.m = m;
    EXPECT_EQ(std::memcmp(fewer.run().data(), together.data(), index_of(m * 70) * sizeof(float)), 0)
        << m;
  }
}

TEST(MixedGemm, ThreadsDoNotMatter) {
  const int before = thread_count();
  for (const std::int64_t m : {1, 6, 70}) {
    const MixedProblem problem(m, 1203, 257, true, 0, false);
    set_thread_count(1);
    const std::vector<float> want = problem.run();
    for (const int threads : {2, 5}) {
      set_thread_count(threads);
      EXPECT_EQ(problem.run(), want) << m << " rows, " << threads << " threads";
    }
    set_thread_count(2);
    std::vector<float> inside[2];
#pragma omp parallel for num_threads(2)
    for (int i = 0; i < 2; ++i) inside[i] = problem.run();
    EXPECT_EQ(inside[0], want) << "inside a parallel region";
    EXPECT_EQ(inside[1], want);
    set_thread_count(before);
  }
}

TEST(MixedGemm, NotANumberStaysInItsRow) {
  for (const std::int64_t m : {3, 10}) {
    MixedProblem problem(m, 6, 40, false, 0, true);
    problem.x[index_of(problem.args.ldx + 39)] = std::numeric_limits<float>::quiet_NaN();
    problem.x[index_of(2 * problem.args.ldx)] = std::numeric_limits<float>::infinity();
    const std::vector<float> y = problem.run();
    for (std::int64_t j = 0; j < 6; ++j) {
      EXPECT_TRUE(std::isfinite(y[index_of(j)]));
      EXPECT_TRUE(std::isnan(y[index_of(6 + j)]));
      EXPECT_TRUE(std::isinf(y[index_of(12 + j)]));
    }
  }
}

}  // namespace
}  // namespace lectern
