#include "autograd/ops/reduce.h"

#include "core/ops/reduce.h"
#include "tests/ops/check_op.h"

#include <cmath>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

TEST(Reduce, SumAndSquaredNorm) {
  for (const std::int64_t n : {1, 7, 16383, 16384, 16385, 100003}) {
    const Tensor x = random_tensor({n}, 1);
    long double total = 0, squares = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const long double value = x.data<float>()[i];
      total += value;
      squares += value * value;
    }
    // Accumulated in f64, so f32 only rounds the result.
    const auto want = static_cast<double>(total);
    EXPECT_NEAR(sum(x).item(), want, 1e-7 * std::max(1.0, std::abs(want)));
    EXPECT_NEAR(squared_norm(x) / static_cast<double>(squares), 1.0, 1e-13);
    EXPECT_NEAR(squared_norm(x.to(DType::f64)) / static_cast<double>(squares), 1.0, 1e-13);
  }
  EXPECT_EQ(squared_norm(Tensor::full({3}, 2).to(DType::bf16)), 12.0);
  EXPECT_EQ(sum(random_tensor({2, 3}, 1)).shape(), Shape{});
}

TEST(Reduce, ManySmallTermsAreNotLost) {
  // In f32 a million ones after a large first term would be swallowed.
  const Tensor x = Tensor::full({1 << 20}, 1.0);
  x.data<float>()[0] = 1e7f;
  EXPECT_EQ(sum(x.to(DType::f64)).item(), 1e7 + (1 << 20) - 1);
  EXPECT_EQ(squared_norm(x), 1e14 + (1 << 20) - 1);
}

TEST(Reduce, SumLeading) {
  for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{1, 1},
                                      {3, 5},
                                      {1000, 1},
                                      {31, 33},
                                      {32, 7},
                                      {33, 7},
                                      {5000, 17},
                                      {3, 40000},
                                      {40, 20000}}) {
    const Tensor x = random_tensor({rows, columns}, 1), want = Tensor::zeros({columns}, DType::f64);
    for (std::int64_t i = 0; i < x.numel(); ++i)
      want.data<double>()[i % columns] += x.data<float>()[i];
    // Chunks of rows keep the error near sqrt(rows) eps.
    EXPECT_TRUE(near(sum_leading(x, {columns}), want, 1e-5)) << rows << "x" << columns;
    EXPECT_TRUE(near(sum_leading(x.to(DType::f64), {columns}), want, 1e-13));
  }
  EXPECT_EQ(sum_leading(random_tensor({2, 3, 4}, 1), {1, 3, 4}).shape(), (Shape{1, 3, 4}));
  EXPECT_TRUE(near(sum_leading(random_tensor({3, 4}, 1).transpose(0, 1), {3}),
                   sum_leading(random_tensor({3, 4}, 1).transpose(0, 1).clone(), {3}), 0));
}

TEST(Reduce, ThreadsDoNotMatter) {
  const Tensor x = random_tensor({100003}, 1), rows = random_tensor({3001, 33}, 2);
  const int before = thread_count();
  set_thread_count(1);
  const double norm = squared_norm(x), total = sum(x.to(DType::f64)).item();
  const Tensor leading = sum_leading(rows, {33});
  for (const int threads : {2, 3, 7}) {
    set_thread_count(threads);
    EXPECT_EQ(squared_norm(x), norm);
    EXPECT_EQ(sum(x.to(DType::f64)).item(), total);
    EXPECT_TRUE(near(sum_leading(rows, {33}), leading, 0));
  }
  set_thread_count(before);
}

TEST(Reduce, Gradients) {
  for (const Shape& shape : {Shape{}, Shape{1}, Shape{3, 5}, Shape{7, 60}}) {
    const auto total = [](const std::vector<Variable>& in) { return sum(in[0]); };
    const auto average = [](const std::vector<Variable>& in) { return mean(in[0]); };
    EXPECT_TRUE(testing::gradient_holds(total, {random_tensor(shape, 1)}));
    EXPECT_TRUE(testing::gradient_holds(average, {random_tensor(shape, 1)}));
    EXPECT_TRUE(testing::single_matches_double(average, {random_tensor(shape, 1)}, 1e-6));
  }
  EXPECT_EQ(mean(Variable(Tensor::from<float>({1, 2, 6}, {3}))).value().item(), 3.0);
}

TEST(Reduce, Empty) {
  EXPECT_EQ(sum(Tensor::empty({0, 4})).item(), 0.0);
  EXPECT_EQ(squared_norm(Tensor::empty({0})), 0.0);
  EXPECT_TRUE(near(sum_leading(Tensor::empty({0, 4}), {4}), Tensor::zeros({4}), 0));
  EXPECT_EQ(sum_leading(Tensor::empty({3, 0}), {0}).shape(), Shape{0});
}

TEST(Reduce, Errors) {
  EXPECT_TRUE(throws_with([] { sum(Tensor::zeros({3}, DType::i32)); },
                          {"sum: dtype must be f32 or f64, got i32"}));
  EXPECT_TRUE(throws_with([] { squared_norm(Tensor::zeros({3}, DType::u8)); },
                          {"squared_norm: dtype must be f32 or f64, got u8"}));
  EXPECT_TRUE(throws_with(
      [] {
        sum_leading(Tensor::zeros({3, 4}), {3});
      },
      {"sum_leading: shape must be the last dimensions of f32 [3, 4] cpu"}));
  EXPECT_TRUE(throws_with(
      [] {
        mean(Variable(Tensor::empty({0, 2})));
      },
      {"mean: x must not be empty, got f32 [0, 2] cpu"}));
}

}  // namespace
}  // namespace lectern
