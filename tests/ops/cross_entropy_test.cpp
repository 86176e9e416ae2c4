#include "autograd/ops/cross_entropy.h"

#include "autograd/gradient_check.h"
#include "tests/testing.h"

#include <cmath>
#include <vector>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

Tensor labels_of(const std::vector<std::int32_t>& values) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())});
}

/// -mean log softmax, with the sum of exponentials taken directly in double.
double reference(const Tensor& logits, const Tensor& labels) {
  const Tensor x = logits.to(DType::f64);
  double sum = 0;
  std::int64_t count = 0;
  for (std::int64_t n = 0; n < x.dim(0); ++n) {
    const std::int32_t label = labels.data<std::int32_t>()[n];
    if (label == kIgnoredLabel) continue;
    const double* row = x.data<double>() + n * x.dim(1);
    double total = 0;
    for (std::int64_t v = 0; v < x.dim(1); ++v) total += std::exp(row[v]);
    sum += std::log(total) - row[label];
    ++count;
  }
  return count == 0 ? 0.0 : sum / static_cast<double>(count);
}

TEST(CrossEntropy, MatchesTheFormula) {
  struct Case {
    std::int64_t classes;
    std::vector<std::int32_t> labels;
  };
  for (const Case& c :
       {Case{1, {0}}, Case{3, {}}, Case{5, {4, -100, 0}}, Case{1001, {7, 1000, 0, -100}}}) {
    const Tensor labels = labels_of(c.labels);
    for (const DType dtype : {DType::f32, DType::f64}) {
      const Tensor logits = random_tensor({labels.dim(0), c.classes}, 1, dtype, 3.0);
      const Variable loss = cross_entropy(Variable(logits), labels);
      EXPECT_EQ(loss.shape(), Shape{});
      EXPECT_EQ(loss.dtype(), dtype);
      EXPECT_NEAR(loss.value().item(), reference(logits, labels),
                  dtype == DType::f32 ? 1e-5 : 1e-13);
    }
  }
}

TEST(CrossEntropy, LargeLogitsDoNotOverflow) {
  const Tensor logits = Tensor::from<float>({1e4f, 1e4f, -1e30f, 0.f}, {2, 2});
  const Variable loss = cross_entropy(Variable(logits), labels_of({0, 1}));
  EXPECT_NEAR(loss.value().item(), std::log(2.0) / 2, 1e-3);
}

TEST(CrossEntropy, Gradient) {
  for (const auto& values : {std::vector<std::int32_t>{2, -100, 0, 4}, {1, 1, 3, 0}}) {
    const Tensor labels = labels_of(values);
    const auto result = check_gradient(
        [&](const std::vector<Variable>& in) { return cross_entropy(in[0], labels); },
        {random_tensor({4, 5}, 2, DType::f64)});
    EXPECT_TRUE(result.passed) << result.message;
  }
}

TEST(CrossEntropy, SinglePrecisionGradientAgreesWithDouble) {
  const Tensor labels = labels_of({5, -100, 299});
  Variable narrow(random_tensor({3, 300}, 3), true), wide(narrow.value().to(DType::f64), true);
  cross_entropy(narrow, labels).backward();
  cross_entropy(wide, labels).backward();
  EXPECT_TRUE(near(narrow.grad(), wide.grad(), 1e-6));
}

TEST(CrossEntropy, NoLabelsGivesZeroNotNaN) {
  Variable logits(random_tensor({2, 3}, 4), true);
  const Variable loss = cross_entropy(logits, labels_of({-100, -100}));
  EXPECT_EQ(loss.value().item(), 0.0);
  loss.backward();
  EXPECT_TRUE(near(logits.grad(), Tensor::zeros({2, 3}), 0));
}

TEST(CrossEntropy, NaNLogitsGiveANaNLoss) {
  const Tensor logits = Tensor::from<float>({0.f, NAN, 1.f}, {1, 3});
  EXPECT_TRUE(std::isnan(cross_entropy(Variable(logits), labels_of({0})).value().item()));
}

TEST(CrossEntropy, RefusesBadInput) {
  const Variable logits(Tensor::zeros({3, 5}));
  EXPECT_TRUE(throws_with(
      [&] {
        cross_entropy(logits, labels_of({0, 5, 1}));
      },
      {"cross_entropy: labels must be 0..4 or -100", "got 5 at position 1"}));
  EXPECT_TRUE(throws_with(
      [&] {
        cross_entropy(logits, labels_of({0, 1, -1}));
      },
      {"got -1 at position 2"}));
  EXPECT_TRUE(throws_with(
      [&] {
        cross_entropy(logits, labels_of({0, 1}));
      },
      {"cross_entropy: labels must be [3]"}));
  EXPECT_TRUE(throws_with([&] { cross_entropy(logits, Tensor::zeros({3}, DType::i64)); },
                          {"cross_entropy: labels must be i32"}));
}

}  // namespace
}  // namespace lectern
