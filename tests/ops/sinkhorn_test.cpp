#include "autograd/ops/sinkhorn.h"

#include "core/io/safetensors.h"
#include "tests/ops/check_op.h"

#include <cmath>
#include <limits>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

constexpr StreamConvention kConventions[] = {StreamConvention::paper, StreamConvention::megatron,
                                             StreamConvention::deepseek_v4};

/// One matrix by the definition in long double: an array, a loop, a division a step.
void reference_matrix(const SinkhornArgs& args, std::int64_t n, double* matrix) {
  std::vector<long double> m(matrix, matrix + n * n);
  const auto rows_of = [&](long double epsilon, bool clamp, bool columns) {
    for (std::int64_t i = 0; i < n; ++i) {
      const auto at = [&](std::int64_t j) -> long double& {
        return m[static_cast<std::size_t>(columns ? j * n + i : i * n + j)];
      };
      long double sum = 0;
      for (std::int64_t j = 0; j < n; ++j) sum += at(j);
      const long double divisor = clamp ? std::max(sum, epsilon) : sum + epsilon;
      for (std::int64_t j = 0; j < n; ++j) at(j) /= divisor;
    }
  };
  for (std::int64_t i = 0; i < n; ++i) {
    const long double top = *std::max_element(m.begin() + i * n, m.begin() + (i + 1) * n);
    for (std::int64_t j = 0; j < n; ++j)
      m[static_cast<std::size_t>(i * n + j)] =
          std::exp(m[static_cast<std::size_t>(i * n + j)] - top);
  }
  for (std::int64_t t = 0; t < args.iterations; ++t) {
    switch (args.convention) {
      case StreamConvention::paper:
        rows_of(0, false, true);
        rows_of(0, false, false);
        break;
      case StreamConvention::megatron:
        rows_of(1e-6L, true, false);
        rows_of(1e-6L, true, true);
        break;
      case StreamConvention::deepseek_v4:
        rows_of(t == 0 ? 0 : 1e-6L, false, false);
        if (t == 0)
          for (long double& x : m) x += 1e-6L;
        rows_of(1e-6L, false, true);
        break;
    }
  }
  for (std::int64_t k = 0; k < n * n; ++k)
    matrix[k] = static_cast<double>(m[static_cast<std::size_t>(k)]);
}

Tensor reference(const Tensor& logits, const SinkhornArgs& args) {
  const Tensor out = logits.to(DType::f64).clone();
  const std::int64_t n = logits.dim(-1);
  for (std::int64_t at = 0; at < out.numel(); at += n * n)
    reference_matrix(args, n, out.data<double>() + at);
  return out;
}

testing::Operation operation(StreamConvention convention, std::int64_t iterations) {
  return [=](const std::vector<Variable>& in) {
    return sinkhorn(in[0], {.convention = convention, .iterations = iterations});
  };
}

TEST(Sinkhorn, MatchesReference) {
  for (const StreamConvention convention : kConventions)
    for (std::int64_t n = 1; n <= 8; ++n)
      for (const std::int64_t iterations : {1, 2, 20})
        for (const std::int64_t count : {1, 5, 16, 37}) {
          const SinkhornArgs args{.convention = convention, .iterations = iterations};
          const Tensor logits = random_tensor({count, n, n}, 3, DType::f32, 2.0);
          EXPECT_TRUE(near(sinkhorn(logits, args), reference(logits, args), 2e-6))
              << name_of(convention) << " n " << n << " iterations " << iterations;
          const Tensor wide = logits.to(DType::f64);
          EXPECT_TRUE(near(sinkhorn(wide, args), reference(wide, args), 1e-13))
              << name_of(convention) << " n " << n;
        }
}

/// Values of the reference implementations, checked against the authors' code.
TEST(Sinkhorn, MatchesFixture) {
  const auto file = SafetensorsFile::open(testing::fixture("mhc_A") / "mhc.safetensors");
  const Tensor logits = file.get("in.sinkhorn_logits");
  for (const StreamConvention convention : kConventions)
    for (const std::int64_t iterations : {1, 2, 5, 20})
      EXPECT_TRUE(near(sinkhorn(logits, {.convention = convention, .iterations = iterations}),
                       file.get(fmt::format("sinkhorn.{}.{}", name_of(convention), iterations)),
                       2e-6))
          << name_of(convention) << " " << iterations;
}

TEST(Sinkhorn, Gradients) {
  for (const StreamConvention convention : kConventions)
    for (std::int64_t n = 1; n <= 8; ++n)
      for (const std::int64_t iterations : {1, 3, 20}) {
        const std::vector<Tensor> logits{random_tensor({3, n, n}, 5, DType::f32, 1.5)};
        EXPECT_TRUE(testing::gradient_holds(operation(convention, iterations), logits))
            << name_of(convention) << " n " << n << " iterations " << iterations;
        EXPECT_TRUE(testing::single_matches_double(operation(convention, iterations), logits, 5e-6))
            << name_of(convention) << " n " << n << " iterations " << iterations;
      }
}

/// Near a permutation the columns of exp(l - row max) span 200 orders of magnitude in f64.
TEST(Sinkhorn, PaperThroughLogarithms) {
  Tensor logits = random_tensor({4, 4, 4}, 7, DType::f64, 1.0);
  for (std::int64_t at = 0; at < logits.numel(); ++at)
    logits.data<double>()[at] -= at % 4 == 2 ? 350.0 : 0.0;
  const SinkhornArgs args{.convention = StreamConvention::paper, .iterations = 5};
  EXPECT_TRUE(near(sinkhorn(logits, args), reference(logits, args), 1e-12));
  EXPECT_TRUE(testing::gradient_holds(operation(StreamConvention::paper, 5), {logits}));
  // f32 takes the same way from 40 on; a column 60 below underflows only without logarithms.
  Tensor single = random_tensor({16, 4, 4}, 8);
  for (std::int64_t at = 0; at < single.numel(); ++at)
    single.data<float>()[at] -= at % 4 == 1 ? 120.0f : 0.0f;
  EXPECT_TRUE(near(sinkhorn(single, args), reference(single, args), 2e-5));
  EXPECT_TRUE(
      testing::single_matches_double(operation(StreamConvention::paper, 5), {single}, 2e-5));
}

/// A token's result does not depend on its neighbours, even when they need logarithms.
TEST(Sinkhorn, TokensDoNotTouch) {
  Tensor logits = random_tensor({16, 4, 4}, 9);
  const SinkhornArgs args{.convention = StreamConvention::paper, .iterations = 20};
  const Tensor alone = sinkhorn(logits, args);
  for (std::int64_t k = 0; k < 16; ++k) logits.data<float>()[16 * 3 + k] = k % 4 == 0 ? -1e4f : 0.f;
  const Tensor mixed = sinkhorn(logits, args);
  for (const std::int64_t token : {0, 2, 4, 15})
    EXPECT_TRUE(near(mixed.slice(0, token, token + 1), alone.slice(0, token, token + 1), 0));
}

TEST(Sinkhorn, ExtremeLogitsStayFinite) {
  const float tiny = std::numeric_limits<float>::denorm_min();
  for (std::int64_t n = 1; n <= 8; ++n) {
    std::vector<Tensor> cases = {Tensor::full({2, n, n}, 1e4), Tensor::full({2, n, n}, -1e4),
                                 Tensor::full({2, n, n}, tiny), Tensor::zeros({2, n, n}),
                                 Tensor::full({2, n, n}, 3e38)};
    Tensor one_hot = Tensor::full({2, n, n}, -1e4), column = Tensor::zeros({2, n, n}),
           signs = Tensor::zeros({2, n, n});
    for (std::int64_t k = 0; k < 2 * n * n; ++k) {
      const std::int64_t i = k / n % n, j = k % n;
      if (j == (i + 1) % n) one_hot.data<float>()[k] = 1e4f;
      column.data<float>()[k] = j == 0 ? 1e4f : -1e4f;  // no doubly stochastic limit near
      signs.data<float>()[k] = (k * 7 % 3 == 0) ? 1e4f : -1e4f;
    }
    cases.insert(cases.end(), {one_hot, column, signs});
    for (const StreamConvention convention : kConventions)
      for (const std::int64_t iterations : {1, 2, 20})
        for (std::size_t c = 0; c < cases.size(); ++c)
          for (const DType dtype : {DType::f32, DType::f64}) {
            const auto results = testing::output_and_gradients(operation(convention, iterations),
                                                               {cases[c].to(dtype)});
            for (const Tensor& result : results) {
              const Tensor x = result.to(DType::f64).contiguous();
              for (std::int64_t k = 0; k < x.numel(); ++k)
                ASSERT_TRUE(std::isfinite(x.data<double>()[k]))
                    << name_of(convention) << " n " << n << " case " << c;
            }
          }
    // A permutation stays one, whatever the order of steps.
    for (const StreamConvention convention : kConventions) {
      const Tensor out = sinkhorn(one_hot, {.convention = convention, .iterations = 20});
      for (std::int64_t k = 0; k < out.numel(); ++k)
        EXPECT_NEAR(out.data<float>()[k], k % n == (k / n % n + 1) % n ? 1.0f : 0.0f, 1e-5);
    }
  }
}

TEST(Sinkhorn, ThreadsDoNotMatter) {
  for (const StreamConvention convention : kConventions)
    EXPECT_TRUE(
        testing::threads_do_not_matter(operation(convention, 20), {random_tensor({500, 4, 4}, 7)}));
}

TEST(Sinkhorn, Empty) {
  EXPECT_EQ(sinkhorn(Tensor::empty({0, 4, 4}), {}).shape(), (Shape{0, 4, 4}));
}

TEST(Sinkhorn, Errors) {
  EXPECT_TRUE(throws_with(
      [] {
        sinkhorn(Tensor::zeros({4, 3}), {});
      },
      {"sinkhorn: logits must be [..., n, n] with n from 1 to 8, got f32 [4, 3]"}));
  EXPECT_TRUE(throws_with([] { sinkhorn(Tensor::zeros({9, 9}), {}); }, {"n from 1 to 8"}));
  EXPECT_TRUE(throws_with(
      [] {
        sinkhorn(Tensor::zeros({2, 2}), {.iterations = 0});
      },
      {"sinkhorn: iterations must be from 1 to 1000, got 0"}));
  EXPECT_TRUE(throws_with(
      [] {
        sinkhorn(Tensor::zeros({2, 2}, DType::bf16), {});
      },
      {"sinkhorn: dtype must be f32 or f64, got bf16"}));
  EXPECT_TRUE(throws_with(
      [] {
        sinkhorn_backward(Tensor::zeros({1, 2}), Tensor::zeros({2, 2}), {});
      },
      {"sinkhorn: grad_output must be [2, 2]"}));
  EXPECT_TRUE(
      throws_with([] { stream_convention_from("v4"); },
                  {"convention: must be \"paper\", \"megatron\" or \"deepseek-v4\", got \"v4\""}));
}

}  // namespace
}  // namespace lectern
