#include "core/cpu/gemm.h"

#include "core/parallel.h"
#include "tests/testing.h"

#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

namespace lectern {
namespace {

constexpr double kGemmGuard = 12345.0;

/// A product with rows further apart than they are long, and the naive answer beside it.
template <typename T>
struct GemmProblem {
  GemmProblem(std::int64_t m, std::int64_t n, std::int64_t k, bool ta, bool tb, bool accumulate,
              std::int64_t gap)
      : args{ta, tb, m, n, k, (ta ? m : k) + gap, (tb ? k : n) + gap, n + gap, accumulate} {
    a = random_values((ta ? k : m) * args.lda + 1, 1);
    b = random_values((tb ? n : k) * args.ldb + 1, 2);
    start = random_values(m * args.ldc + 1, 3);
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = n; j < args.ldc; ++j) start[at(i * args.ldc + j)] = T(kGemmGuard);
  }

  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

  static std::vector<T> random_values(std::int64_t count, std::uint64_t seed) {
    const Tensor t = testing::random_tensor({count}, seed, kDTypeOf<T>);
    return {t.data<T>(), t.data<T>() + count};
  }

  std::vector<T> run() const {
    std::vector<T> c = start;
    gemm(args, a.data(), b.data(), c.data());
    return c;
  }

  double expected(std::int64_t i, std::int64_t j, double& magnitude) const {
    double sum = args.accumulate ? double(start[at(i * args.ldc + j)]) : 0.0;
    magnitude = std::abs(sum);
    for (std::int64_t p = 0; p < args.k; ++p) {
      const double x = a[at(args.transpose_a ? p * args.lda + i : i * args.lda + p)];
      const double y = b[at(args.transpose_b ? j * args.ldb + p : p * args.ldb + j)];
      sum += x * y;
      magnitude += std::abs(x * y);
    }
    return sum;
  }

  /// Standard bound on a sum of k products in any order: k eps sum |a b|.
  void check(const std::vector<T>& c) const {
    const double eps = std::numeric_limits<T>::epsilon() * double(args.k + 2);
    for (std::int64_t i = 0; i < args.m; ++i) {
      for (std::int64_t j = 0; j < args.n; ++j) {
        double magnitude = 0;
        const double want = expected(i, j, magnitude);
        const double got = c[at(i * args.ldc + j)];
        ASSERT_LE(std::abs(got - want), eps * magnitude)
            << "C[" << i << "," << j << "] of " << args.m << "x" << args.n << "x" << args.k
            << " ta " << args.transpose_a << " tb " << args.transpose_b << ": got " << got
            << " want " << want;
      }
      for (std::int64_t j = args.n; j < args.ldc; ++j)
        ASSERT_EQ(c[at(i * args.ldc + j)], T(kGemmGuard)) << "wrote beside row " << i;
    }
  }

  GemmArgs args;
  std::vector<T> a, b, start;
};

template <typename T>
class GemmTest : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(GemmTest, Types);

using Sizes = std::tuple<std::int64_t, std::int64_t, std::int64_t>;
// Around the tile (12 x 32 or 12 x 16), the blocks (192, 256, 1024) and both fast paths.
const std::vector<Sizes> kGemmSizes = {{1, 1, 1},     {1, 33, 64},   {2, 7, 300},  {3, 40, 17},
                                       {4, 129, 96},  {5, 31, 63},   {11, 15, 5},  {12, 32, 256},
                                       {13, 33, 257}, {25, 48, 100}, {64, 64, 48}, {196, 50, 64},
                                       {193, 17, 20}, {31, 1040, 9}, {7, 1030, 3}, {70, 90, 600}};

TYPED_TEST(GemmTest, MatchesNaiveProduct) {
  for (const auto& [m, n, k] : kGemmSizes)
    for (int flags = 0; flags < 8; ++flags)
      for (const std::int64_t gap : {0, 5}) {
        const GemmProblem<TypeParam> problem(m, n, k, flags & 1, flags & 2, flags & 4, gap);
        problem.check(problem.run());
        if (this->HasFatalFailure()) return;
      }
}

TYPED_TEST(GemmTest, RowsThatMapToTheSameCacheSets) {
  const GemmProblem<TypeParam> problem(40, 100, 1024, false, true, false, 0);
  problem.check(problem.run());
}

TYPED_TEST(GemmTest, SameBitsForAnyNumberOfThreads) {
  const int before = thread_count();
  for (const auto& [m, n, k] : std::vector<Sizes>{{300, 200, 130},
                                                  {1, 900, 700},
                                                  {8, 2000, 300},
                                                  {900, 40, 70},
                                                  {96, 64, 2048},
                                                  {64, 64, 3000}})
    for (int flags = 0; flags < 4; ++flags) {
      const GemmProblem<TypeParam> problem(m, n, k, flags & 1, flags & 2, false, 0);
      set_thread_count(1);
      const auto want = problem.run();
      for (const int threads : {2, 3, 4}) {
        set_thread_count(threads);
        EXPECT_EQ(problem.run(), want) << m << "x" << n << "x" << k << " flags " << flags;
      }
      set_thread_count(before);
    }
}

TYPED_TEST(GemmTest, InsideAParallelRegion) {
  const GemmProblem<TypeParam> problem(60, 70, 80, false, false, false, 3);
  std::vector<std::vector<TypeParam>> results(4);
#pragma omp parallel for num_threads(2)
  for (int i = 0; i < 4; ++i) results[static_cast<std::size_t>(i)] = problem.run();
  for (const auto& result : results) problem.check(result);
}

TYPED_TEST(GemmTest, EmptySums) {
  GemmProblem<TypeParam> problem(5, 6, 0, false, false, false, 0);
  const auto zeros = problem.run();
  for (std::size_t i = 0; i < 30; ++i) EXPECT_EQ(zeros[i], TypeParam{0});
  problem.args.accumulate = true;
  EXPECT_EQ(problem.run(), problem.start);
  problem.args.m = 0;
  EXPECT_EQ(problem.run(), problem.start);
}

TYPED_TEST(GemmTest, BiasStartsEverySum) {
  using T = TypeParam;
  for (const auto& [m, n, k] : kGemmSizes)
    for (const bool tb : {false, true}) {
      const GemmProblem<T> problem(m, n, k, false, tb, false, 2);
      const auto bias = GemmProblem<T>::random_values(n, 9);
      std::vector<T> with = problem.start;
      gemm_bias(problem.args, problem.a.data(), problem.b.data(), bias.data(), with.data());
      const double eps = std::numeric_limits<T>::epsilon() * double(k + 3);
      for (std::int64_t i = 0; i < m; ++i)
        for (std::int64_t j = 0; j < n; ++j) {
          double magnitude = 0;
          const double b = bias[static_cast<std::size_t>(j)];
          const double want = problem.expected(i, j, magnitude) + b;
          const double got = with[static_cast<std::size_t>(i * problem.args.ldc + j)];
          ASSERT_LE(std::abs(got - want), eps * (magnitude + std::abs(b))) << m << "x" << n;
        }
    }
}

}  // namespace
}  // namespace lectern
