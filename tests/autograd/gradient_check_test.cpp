#include "autograd/gradient_check.h"

#include "tests/testing.h"

#include <cmath>

namespace lectern {
namespace {

using testing::random_tensor;
using Variables = std::vector<Variable>;

/// y = sin(x), whose gradient is wrong by `error` in one element.
Variable sine(const Variable& x, double error, std::int64_t at = 0) {
  const Tensor in = x.value();
  Tensor out = Tensor::empty(in.shape(), DType::f64);
  for (std::int64_t i = 0; i < in.numel(); ++i)
    out.data<double>()[i] = std::sin(in.data<double>()[i]);
  return record("sine", out, {x}, [=](const Tensor& g) -> std::vector<Tensor> {
    Tensor grad = Tensor::empty(in.shape(), DType::f64);
    for (std::int64_t i = 0; i < in.numel(); ++i)
      grad.data<double>()[i] =
          g.data<double>()[i] * (std::cos(in.data<double>()[i]) + (i == at ? error : 0.0));
    return {grad};
  });
}

TEST(GradientCheck, PassesARightGradient) {
  const auto result =
      check_gradient([](const Variables& v) { return sine(v[0], 0); }, {random_tensor({3, 4}, 1)});
  EXPECT_TRUE(result.passed) << result.message;
  EXPECT_LT(result.worst, 1e-8);
}

TEST(GradientCheck, CatchesOneWrongElement) {
  const auto result = check_gradient([](const Variables& v) { return sine(v[0], 1e-3, 5); },
                                     {random_tensor({3, 4}, 1)});
  EXPECT_FALSE(result.passed);
  EXPECT_NE(result.message.find("input 0 element 5"), std::string::npos) << result.message;
}

TEST(GradientCheck, CatchesAWrongGradientOfALargeInput) {
  const auto check = [](double error) {
    return check_gradient([=](const Variables& v) { return sine(v[0], error, 100); },
                          {random_tensor({40, 50}, 1)});
  };
  EXPECT_TRUE(check(0).passed) << check(0).message;
  EXPECT_FALSE(check(0.1).passed);
  EXPECT_NE(check(0.1).message.find("direction"), std::string::npos);
}

TEST(GradientCheck, CatchesAMissingGradient) {
  const auto result = check_gradient(
      [](const Variables& v) {
        const Variable y = sine(v[0], 0);
        return record("drop", y.value(), {y}, [](const Tensor&) { return std::vector<Tensor>(1); });
      },
      {random_tensor({3}, 1)});
  EXPECT_FALSE(result.passed);
}

TEST(GradientCheck, CatchesNotANumber) {
  const auto result = check_gradient([](const Variables& v) { return sine(v[0], std::nan("")); },
                                     {random_tensor({3}, 1)});
  EXPECT_FALSE(result.passed);
}

TEST(GradientCheck, SeveralInputsAndOutputs) {
  const auto check = [](double error) {
    return check_gradients(
        [=](const Variables& v) {
          return Variables{sine(v[0], 0), sine(v[1], error)};
        },
        {random_tensor({3}, 1), random_tensor({2, 2}, 2)});
  };
  EXPECT_TRUE(check(0).passed) << check(0).message;
  const auto wrong = check(0.01);
  EXPECT_FALSE(wrong.passed);
  EXPECT_NE(wrong.message.find("input 1"), std::string::npos) << wrong.message;
}

TEST(GradientCheck, ACotangentOfOnesWouldHaveMissedThis) {
  // y = x - mean(x) sums to zero: with ones as the cotangent, a gradient of zero would pass.
  const auto result = check_gradient(
      [](const Variables& v) {
        const Tensor x = v[0].value();
        double mean = 0;
        for (std::int64_t i = 0; i < 4; ++i) mean += x.data<double>()[i] / 4;
        Tensor y = x.clone();
        for (std::int64_t i = 0; i < 4; ++i) y.data<double>()[i] -= mean;
        return record("center", y, {v[0]}, [](const Tensor& g) -> std::vector<Tensor> {
          return {Tensor::zeros_like(g)};
        });
      },
      {random_tensor({4}, 1)});
  EXPECT_FALSE(result.passed);
}

}  // namespace
}  // namespace lectern
