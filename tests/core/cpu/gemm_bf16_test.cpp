#include "core/cpu/gemm_bf16.h"

#include "core/parallel.h"
#include "tests/testing.h"

#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

namespace lectern {
namespace {

using testing::throws_with;

constexpr float kGuard = 12345.0F;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::vector<float> random_floats(std::int64_t count, std::uint64_t seed) {
  const Tensor t = testing::random_tensor({count}, seed);
  return {t.data<float>(), t.data<float>() + count};
}

/// With NaN behind the last element: whoever reads there is found out.
std::vector<BFloat16> random_bf16(std::int64_t count, std::uint64_t seed) {
  std::vector<BFloat16> out;
  for (const float value : random_floats(count, seed)) out.emplace_back(value);
  out.emplace_back(std::numeric_limits<float>::quiet_NaN());
  return out;
}

/// A product with rows further apart than they are long (NaN between them), and the naive answer in
/// f64 beside it.
struct Problem {
  Problem(std::int64_t m, std::int64_t n, std::int64_t k, bool ta, bool tb, bool accumulate,
          std::int64_t gap)
      : args{ta, tb, m, n, k, (ta ? m : k) + gap, (tb ? k : n) + gap, n + gap, accumulate},
        a(random_bf16((ta ? k : m) * args.lda, 1)),
        b(random_bf16((tb ? n : k) * args.ldb, 2)),
        start(random_floats(m * args.ldc + 1, 3)) {
    spoil(a, ta ? k : m, ta ? m : k, args.lda);
    spoil(b, tb ? n : k, tb ? k : n, args.ldb);
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = n; j < args.ldc; ++j) start[at(i * args.ldc + j)] = kGuard;
  }

  static void spoil(std::vector<BFloat16>& x, std::int64_t rows, std::int64_t columns,
                    std::int64_t pitch) {
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = columns; j < pitch; ++j) x[at(i * pitch + j)] = x.back();
  }

  std::vector<float> run(const float* bias = nullptr) const {
    std::vector<float> c = start;
    gemm_bf16(args, a.data(), b.data(), c.data(), bias);
    return c;
  }

  /// Standard bound on a sum of k products in any order: k eps sum |a b|.
  void check(const std::vector<float>& c, const std::vector<float>& bias = {}) const {
    const double eps = std::numeric_limits<float>::epsilon() * static_cast<double>(args.k + 3);
    for (std::int64_t i = 0; i < args.m; ++i) {
      for (std::int64_t j = 0; j < args.n; ++j) {
        double want = args.accumulate ? start[at(i * args.ldc + j)] : 0.0;
        if (!bias.empty()) want += bias[at(j)];
        double magnitude = std::abs(want);
        for (std::int64_t p = 0; p < args.k; ++p) {
          const auto x =
              static_cast<float>(a[at(args.transpose_a ? p * args.lda + i : i * args.lda + p)]);
          const auto y =
              static_cast<float>(b[at(args.transpose_b ? j * args.ldb + p : p * args.ldb + j)]);
          want += static_cast<double>(x) * y;
          magnitude += std::abs(static_cast<double>(x) * y);
        }
        const double got = c[at(i * args.ldc + j)];
        ASSERT_LE(std::abs(got - want), eps * magnitude)
            << "C[" << i << "," << j << "] of " << args.m << "x" << args.n << "x" << args.k
            << " ta " << args.transpose_a << " tb " << args.transpose_b << ": got " << got
            << " want " << want;
      }
      for (std::int64_t j = args.n; j < args.ldc; ++j)
        ASSERT_EQ(c[at(i * args.ldc + j)], kGuard) << "wrote beside row " << i;
    }
  }

  GemmArgs args;
  std::vector<BFloat16> a, b;
  std::vector<float> start;
};

using Sizes = std::tuple<std::int64_t, std::int64_t, std::int64_t>;
// Around the tile (12 x 32, pairs of k), the blocks (192, 512, 1024) and the rows of gemm_dots.
const std::vector<Sizes> kSizes = {{1, 1, 1},     {1, 33, 64},   {2, 7, 301},  {3, 40, 17},
                                   {4, 129, 96},  {5, 31, 63},   {6, 2, 129},  {7, 9, 2},
                                   {8, 5, 64},    {9, 5, 64},    {11, 15, 5},  {12, 32, 512},
                                   {13, 33, 513}, {25, 48, 100}, {64, 64, 48}, {196, 50, 64},
                                   {193, 17, 21}, {31, 1040, 9}, {7, 1030, 3}, {70, 90, 1201}};

TEST(GemmBf16, MatchesNaiveProduct) {
  for (const auto& [m, n, k] : kSizes)
    for (int flags = 0; flags < 8; ++flags)
      for (const std::int64_t gap : {0, 5}) {
        const Problem problem(m, n, k, flags & 1, flags & 2, flags & 4, gap);
        problem.check(problem.run());
        if (HasFatalFailure()) return;
      }
}

TEST(GemmBf16, RowsThatMapToTheSameCacheSets) {
  const Problem problem(40, 100, 1024, false, true, false, 0);
  problem.check(problem.run());
}

TEST(GemmBf16, SameBitsForAnyNumberOfThreads) {
  const int before = thread_count();
  for (const auto& [m, n, k] : std::vector<Sizes>{
           {300, 200, 130}, {1, 900, 700}, {8, 2000, 301}, {900, 40, 70}, {64, 64, 3001}})
    for (int flags = 0; flags < 4; ++flags) {
      const Problem problem(m, n, k, flags & 1, flags & 2, false, 0);
      set_thread_count(1);
      const auto want = problem.run();
      for (const int threads : {2, 3, 4}) {
        set_thread_count(threads);
        EXPECT_EQ(problem.run(), want) << m << "x" << n << "x" << k << " flags " << flags;
      }
      set_thread_count(before);
    }
}

TEST(GemmBf16, InsideAParallelRegion) {
  const Problem problem(60, 70, 81, true, false, false, 3);
  std::vector<std::vector<float>> results(4);
#pragma omp parallel for num_threads(2)
  for (int i = 0; i < 4; ++i) results[static_cast<std::size_t>(i)] = problem.run();
  for (const auto& result : results) EXPECT_EQ(result, problem.run());
  problem.check(results[0]);
}

TEST(GemmBf16, EmptySums) {
  Problem problem(5, 6, 0, false, false, false, 0);
  const auto zeros = problem.run();
  for (std::size_t i = 0; i < 30; ++i) EXPECT_EQ(zeros[i], 0.0F);
  const auto bias = random_floats(6, 4);
  EXPECT_EQ(problem.run(bias.data())[6 + 5], bias[5]);
  problem.args.accumulate = true;
  EXPECT_EQ(problem.run(), problem.start);
  problem.args.m = 0;
  EXPECT_EQ(problem.run(), problem.start);
}

TEST(GemmBf16, BiasStartsEverySum) {
  for (const auto& [m, n, k] : kSizes)
    for (const bool tb : {false, true}) {
      const Problem problem(m, n, k, false, tb, false, 2);
      const auto bias = random_floats(n, 9);
      problem.check(problem.run(bias.data()), bias);
      if (HasFatalFailure()) return;
    }
}

TEST(GemmBf16, BiasCannotBeAccumulated) {
  const Problem problem(2, 2, 2, false, false, true, 0);
  const auto bias = random_floats(2, 9);
  EXPECT_TRUE(
      throws_with([&] { problem.run(bias.data()); }, {"gemm_bf16: a bias cannot be accumulated"}));
}

}  // namespace
}  // namespace lectern
