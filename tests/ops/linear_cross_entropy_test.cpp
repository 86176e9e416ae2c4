#include "autograd/ops/linear_cross_entropy.h"

#include "autograd/gradient_check.h"
#include "autograd/ops/cross_entropy.h"
#include "core/allocator.h"
#include "core/ops/linear_cross_entropy.h"
#include "core/parallel.h"
#include "core/random.h"
#include "tests/testing.h"

#include <cmath>
#include <cstring>
#include <vector>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

Tensor random_labels(std::int64_t rows, std::int64_t classes, double ignored, std::uint64_t seed) {
  Random random(seed, "labels");
  Tensor out = Tensor::empty({rows}, DType::i32);
  for (std::int64_t n = 0; n < rows; ++n)
    out.data<std::int32_t>()[n] =
        random.uniform() < ignored
            ? kIgnoredLabel
            : static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(classes)));
  return out;
}

/// logits = hidden weight^T with plain loops, so that the reference shares no product with the op.
Tensor logits_of(const Tensor& hidden, const Tensor& weight) {
  Tensor out = Tensor::zeros({hidden.dim(0), weight.dim(0)}, DType::f64);
  const Tensor h = hidden.to(DType::f64), w = weight.to(DType::f64);
  for (std::int64_t n = 0; n < h.dim(0); ++n)
    for (std::int64_t v = 0; v < w.dim(0); ++v)
      for (std::int64_t c = 0; c < h.dim(1); ++c)
        out.data<double>()[n * w.dim(0) + v] +=
            h.data<double>()[n * h.dim(1) + c] * w.data<double>()[v * h.dim(1) + c];
  return out;
}

struct Gradients {
  double loss;
  Tensor hidden, weight;
};

/// Through cross_entropy of the full logits: loss * count, and the chain rule by hand, in double.
Gradients reference(const Tensor& hidden, const Tensor& weight, const Tensor& labels) {
  Variable logits(logits_of(hidden, weight), true);
  const CrossEntropyResult result = cross_entropy_forward(logits.value(), labels);
  const Variable mean = cross_entropy(logits, labels);
  const auto count = static_cast<double>(result.count);
  mean.backward(Tensor::full({}, count, DType::f64));
  const std::int64_t rows = hidden.dim(0), width = hidden.dim(1), classes = weight.dim(0);
  Gradients out = {mean.value().item() * count, Tensor::zeros({rows, width}, DType::f64),
                   Tensor::zeros({classes, width}, DType::f64)};
  const Tensor h = hidden.to(DType::f64), w = weight.to(DType::f64);
  const double* g = logits.grad().data<double>();
  for (std::int64_t n = 0; n < rows; ++n)
    for (std::int64_t v = 0; v < classes; ++v)
      for (std::int64_t c = 0; c < width; ++c) {
        out.hidden.data<double>()[n * width + c] +=
            g[n * classes + v] * w.data<double>()[v * width + c];
        out.weight.data<double>()[v * width + c] +=
            g[n * classes + v] * h.data<double>()[n * width + c];
      }
  return out;
}

struct HeadCase {
  std::int64_t rows, width, classes;
  double ignored;
};

TEST(LinearCrossEntropy, MatchesCrossEntropyOfTheFullLogits) {
  // 600 rows is more than two row chunks.
  for (const HeadCase& c : {HeadCase{1, 1, 1, 0.0}, HeadCase{5, 3, 7, 0.3},
                            HeadCase{600, 8, 33, 0.1}, HeadCase{40, 17, 301, 0.5}}) {
    const Tensor labels = random_labels(c.rows, c.classes, c.ignored, 1);
    for (const DType dtype : {DType::f32, DType::f64}) {
      Variable hidden(random_tensor({c.rows, c.width}, 2, dtype), true);
      Variable weight(random_tensor({c.classes, c.width}, 3, dtype, 0.5), true);
      const Gradients want = reference(hidden.value(), weight.value(), labels);
      const LinearCrossEntropyResult got = linear_cross_entropy(hidden, weight, labels);
      const double bound = dtype == DType::f32 ? 2e-6 : 1e-13;
      EXPECT_NEAR(got.loss_sum.value().item(), want.loss, bound * std::max(1.0, want.loss));
      got.loss_sum.backward();
      EXPECT_TRUE(near(hidden.grad(), want.hidden, 10 * bound));
      EXPECT_TRUE(near(weight.grad(), want.weight, 10 * bound));
    }
  }
}

TEST(LinearCrossEntropy, Bf16OperandsMatchTheFullLogits) {
  for (const HeadCase& c : {HeadCase{1, 1, 1, 0.0}, HeadCase{5, 3, 7, 0.3},
                            HeadCase{600, 9, 33, 0.1}, HeadCase{40, 17, 301, 0.5}}) {
    const Tensor labels = random_labels(c.rows, c.classes, c.ignored, 1);
    const Tensor hidden = random_tensor({c.rows, c.width}, 2).to(DType::bf16);
    const Tensor weight = random_tensor({c.classes, c.width}, 3, DType::f32, 0.5).to(DType::bf16);
    const Gradients want = reference(hidden, weight, labels);
    const LinearCrossEntropyTensors got =
        linear_cross_entropy_forward(hidden, weight, labels, true, true);
    EXPECT_NEAR(got.loss_sum.item(), want.loss, 2e-6 * std::max(1.0, want.loss));
    // The gradient of the logits is rounded to 2^-9 before its two products.
    EXPECT_TRUE(near(got.grad_hidden, want.hidden, 3e-3));
    EXPECT_TRUE(near(got.grad_weight, want.weight, 3e-3));
    EXPECT_EQ(got.grad_weight.dtype(), DType::f32);
  }
}

TEST(LinearCrossEntropy, Gradient) {
  const Tensor labels = Tensor::from<std::int32_t>({3, -100, 0, 5, 3}, {5});
  const auto result = check_gradient(
      [&](const std::vector<Variable>& in) {
        return linear_cross_entropy(in[0], in[1], labels).loss_sum;
      },
      {random_tensor({5, 4}, 4, DType::f64), random_tensor({6, 4}, 5, DType::f64)});
  EXPECT_TRUE(result.passed) << result.message;
}

TEST(LinearCrossEntropy, OnlyTheWantedGradientExists) {
  const Tensor labels = Tensor::from<std::int32_t>({1, 2}, {2});
  const Tensor h = random_tensor({2, 3}, 6), w = random_tensor({4, 3}, 7);
  Variable hidden(h, true), frozen(w);
  linear_cross_entropy(hidden, frozen, labels).loss_sum.backward();
  EXPECT_TRUE(hidden.grad().defined());
  EXPECT_FALSE(frozen.grad().defined());
  const LinearCrossEntropyTensors only = linear_cross_entropy_forward(h, w, labels, false, true);
  EXPECT_FALSE(only.grad_hidden.defined());
  EXPECT_TRUE(only.grad_weight.defined());
  const NoGrad off;
  EXPECT_FALSE(linear_cross_entropy(hidden, frozen, labels).loss_sum.requires_grad());
}

TEST(LinearCrossEntropy, NoLabelsGivesZeros) {
  const Tensor labels = Tensor::full({3}, kIgnoredLabel, DType::i32);
  for (int i = 0; i < 4; ++i) Tensor::full({5, 2}, 1e9);  // rubbish for the allocator to hand out
  Variable hidden(random_tensor({3, 2}, 8), true), weight(random_tensor({5, 2}, 9), true);
  const LinearCrossEntropyResult got = linear_cross_entropy(hidden, weight, labels);
  EXPECT_EQ(got.loss_sum.value().item(), 0.0);
  EXPECT_EQ(got.count, 0);
  got.loss_sum.backward();
  EXPECT_TRUE(near(hidden.grad(), Tensor::zeros({3, 2}), 0));
  EXPECT_TRUE(near(weight.grad(), Tensor::zeros({5, 2}), 0));
}

TEST(LinearCrossEntropy, NeverHoldsAllLogits) {
  const std::int64_t rows = 2048, classes = 4096, width = 4;
  const Tensor hidden = random_tensor({rows, width}, 10),
               weight = random_tensor({classes, width}, 11);
  const Tensor labels = random_labels(rows, classes, 0.0, 12);
  reset_peak_memory();
  const std::size_t before = memory_statistics().current_bytes;
  linear_cross_entropy_forward(hidden, weight, labels, true, true);
  const std::size_t extra = memory_statistics().peak_bytes - before;
  EXPECT_LT(extra, static_cast<std::size_t>(rows * classes) * sizeof(float) / 4);
}

TEST(LinearCrossEntropy, SameBitsForAnyNumberOfThreads) {
  const Tensor hidden = random_tensor({300, 32}, 13), weight = random_tensor({500, 32}, 14);
  const Tensor labels = random_labels(300, 500, 0.2, 15);
  const int before = thread_count();
  std::vector<LinearCrossEntropyTensors> results;
  for (const int threads : {1, 2, 3}) {
    set_thread_count(threads);
    results.push_back(linear_cross_entropy_forward(hidden, weight, labels, true, true));
  }
  set_thread_count(before);
  for (const auto& r : results) {
    EXPECT_EQ(r.loss_sum.item(), results[0].loss_sum.item());
    EXPECT_EQ(
        0, std::memcmp(r.grad_hidden.raw(), results[0].grad_hidden.raw(), r.grad_hidden.bytes()));
    EXPECT_EQ(
        0, std::memcmp(r.grad_weight.raw(), results[0].grad_weight.raw(), r.grad_weight.bytes()));
  }
}

TEST(LinearCrossEntropy, RefusesBadInput) {
  const Variable hidden(Tensor::zeros({2, 3})), weight(Tensor::zeros({4, 3}));
  EXPECT_TRUE(throws_with(
      [&] {
        linear_cross_entropy(hidden, weight, Tensor::from<std::int32_t>({0, 4}, {2}));
      },
      {"linear_cross_entropy: labels must be 0..3 or -100", "got 4 at position 1"}));
  EXPECT_TRUE(throws_with(
      [&] {
        linear_cross_entropy(hidden, weight, Tensor::from<std::int32_t>({-7, 0}, {2}));
      },
      {"got -7 at position 0"}));
  EXPECT_TRUE(
      throws_with([&] { linear_cross_entropy(hidden, weight, Tensor::zeros({3}, DType::i32)); },
                  {"linear_cross_entropy: labels must be [2]"}));
  EXPECT_TRUE(throws_with(
      [&] {
        linear_cross_entropy(hidden, Variable(Tensor::zeros({4, 2})),
                             Tensor::zeros({2}, DType::i32));
      },
      {"linear_cross_entropy: weight must be [4, 3]"}));
}

}  // namespace
}  // namespace lectern
