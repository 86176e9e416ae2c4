#include "core/ops/matmul.h"

#include "autograd/gradient_check.h"
#include "autograd/ops/matmul.h"
#include "tests/testing.h"

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

/// a [M, K] b [K, N] in double.
Tensor naive(const Tensor& a, const Tensor& b) {
  const Tensor x = a.to(DType::f64).contiguous(), y = b.to(DType::f64).contiguous();
  const std::int64_t m = a.dim(0), k = a.dim(1), n = b.dim(1);
  Tensor out = Tensor::zeros({m, n}, DType::f64);
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t p = 0; p < k; ++p)
      for (std::int64_t j = 0; j < n; ++j)
        out.data<double>()[i * n + j] += x.data<double>()[i * k + p] * y.data<double>()[p * n + j];
  return out;
}

TEST(Matmul, MatchesDefinitionWithEveryFlag) {
  for (const DType dtype : {DType::f32, DType::f64})
    for (const Shape& s : {Shape{1, 1, 1}, Shape{3, 5, 7}, Shape{60, 33, 130}, Shape{129, 64, 200}})
      for (int flags = 0; flags < 4; ++flags) {
        const bool ta = flags & 1, tb = flags & 2;
        const Tensor a = random_tensor(ta ? Shape{s[2], s[0]} : Shape{s[0], s[2]}, 1, dtype);
        const Tensor b = random_tensor(tb ? Shape{s[1], s[2]} : Shape{s[2], s[1]}, 2, dtype);
        EXPECT_TRUE(near(matmul(a, b, {ta, tb}),
                         naive(ta ? a.transpose(0, 1) : a, tb ? b.transpose(0, 1) : b),
                         dtype == DType::f32 ? 2e-6 : 1e-14));
      }
}

TEST(Matmul, StridedAndEmpty) {
  const Tensor a = random_tensor({8, 6}, 1).slice(1, 1, 5), b = random_tensor({5, 4}, 2);
  EXPECT_TRUE(near(matmul(a, b.transpose(0, 1)), naive(a, b.transpose(0, 1)), 2e-6));
  EXPECT_EQ(matmul(Tensor::zeros({0, 3}), Tensor::zeros({3, 2})).shape(), (Shape{0, 2}));
  EXPECT_TRUE(near(matmul(Tensor::zeros({2, 0}), Tensor::zeros({0, 2})), Tensor::zeros({2, 2}), 0));
}

TEST(Matmul, GradientCheck) {
  for (int flags = 0; flags < 4; ++flags) {
    const bool ta = flags & 1, tb = flags & 2;
    const auto result = check_gradient(
        [&](const std::vector<Variable>& v) {
          return matmul(v[0], v[1], {ta, tb});
        },
        {random_tensor(ta ? Shape{4, 3} : Shape{3, 4}, 1),
         random_tensor(tb ? Shape{5, 4} : Shape{4, 5}, 2)});
    EXPECT_TRUE(result.passed) << "flags " << flags << ": " << result.message;
  }
}

TEST(Matmul, Errors) {
  EXPECT_TRUE(throws_with(
      [] {
        matmul(Tensor::zeros({2, 3}), Tensor::zeros({4, 2}));
      },
      {"matmul: b must have 3 rows", "[4, 2]"}));
  EXPECT_TRUE(throws_with(
      [] {
        matmul(Tensor::zeros({2, 3}), Tensor::zeros({4, 2}), {false, true});
      },
      {"matmul: b must have 3 columns"}));
  EXPECT_TRUE(throws_with(
      [] {
        matmul(Tensor::zeros({2}), Tensor::zeros({4, 2}));
      },
      {"matmul: a must have 2 dimensions"}));
  EXPECT_TRUE(throws_with(
      [] {
        matmul(Tensor::zeros({2, 3}), Tensor::zeros({3, 2}, DType::f64));
      },
      {"matmul: b must be f32, got f64"}));
}

}  // namespace
}  // namespace lectern
