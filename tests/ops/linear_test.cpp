#include "core/ops/linear.h"

#include "autograd/gradient_check.h"
#include "autograd/ops/linear.h"
#include "core/parallel.h"
#include "tests/testing.h"

#include <cstring>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

/// y = x W^T + b by its definition, in double.
Tensor naive(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const Tensor a = x.to(DType::f64).contiguous(), w = weight.to(DType::f64).contiguous();
  const Tensor b = bias.defined() ? bias.to(DType::f64) : Tensor();
  const std::int64_t n = w.dim(0), k = w.dim(1), m = k == 0 ? 0 : a.numel() / k;
  Shape shape = x.shape();
  shape[shape.ndim() - 1] = n;
  Tensor y = Tensor::zeros(shape, DType::f64);
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = b.defined() ? b.data<double>()[j] : 0.0;
      for (std::int64_t p = 0; p < k; ++p)
        sum += a.data<double>()[i * k + p] * w.data<double>()[j * k + p];
      y.data<double>()[i * n + j] = sum;
    }
  return y;
}

bool bits_are_equal(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

struct LinearSizes {
  std::int64_t m, n, k;
};

TEST(Linear, MatchesDefinition) {
  for (const auto& [m, n, k] :
       {LinearSizes{1, 1, 1}, LinearSizes{1, 77, 130}, LinearSizes{3, 64, 65},
        LinearSizes{5, 40, 300}, LinearSizes{33, 7, 19}, LinearSizes{128, 96, 64}})
    for (const DType dtype : {DType::f32, DType::f64})
      for (const bool has_bias : {false, true}) {
        const Tensor x = random_tensor({m, k}, 1, dtype), w = random_tensor({n, k}, 2, dtype);
        const Tensor b = has_bias ? random_tensor({n}, 3, dtype) : Tensor();
        // Relative to the largest output; random signs keep the sum's error near sqrt(k) eps.
        EXPECT_TRUE(near(linear(x, w, b), naive(x, w, b), dtype == DType::f32 ? 2e-6 : 1e-14))
            << m << "x" << n << "x" << k;
      }
}

TEST(Linear, LargeProducts) {
  const Tensor x = random_tensor({1001, 531}, 1), w = random_tensor({515, 531}, 2);
  const Tensor b = random_tensor({515}, 3);
  EXPECT_TRUE(near(linear(x, w, b), naive(x, w, b), 2e-6));
}

/// The weight's values are bf16 either way; only many rows of x are rounded (2^-9 of each product,
/// and the errors of 531 products of random sign add up like their square root).
TEST(Linear, BFloat16Weights) {
  const Tensor w = random_tensor({65, 531}, 2).to(DType::bf16), b = random_tensor({65}, 3);
  for (const std::int64_t m : {1, 4, 8, 9, 40}) {
    const Tensor x = random_tensor({m, 531}, 1);
    EXPECT_TRUE(near(linear(x, w, b), naive(x, w, b), m <= 8 ? 2e-6 : 4e-3)) << m;
    EXPECT_TRUE(near(linear(x, w.slice(0, 5, 24)), naive(x, w.slice(0, 5, 24), {}), 4e-3)) << m;
  }
  const Tensor x = random_tensor({2, 531}, 1);
  EXPECT_TRUE(throws_with([&] { linear(x.to(DType::f64), w); }, {"weight must be f64", "bf16"}));
  EXPECT_TRUE(throws_with([&] { linear(x, w, b.to(DType::bf16)); }, {"bias must be f32", "bf16"}));
  EXPECT_TRUE(throws_with(
      [&] {
        linear_grad_x(Tensor::zeros({2, 65}), w);
      },
      {"weight must be f32", "bf16"}));
}

TEST(Linear, LeadingDimensionsAreRows) {
  const Tensor x = random_tensor({2, 3, 4, 16}, 1), w = random_tensor({5, 16}, 2);
  const Tensor y = linear(x, w);
  EXPECT_EQ(y.shape(), (Shape{2, 3, 4, 5}));
  EXPECT_TRUE(near(y.view({24, 5}), naive(x.view({24, 16}), w, {}), 2e-6));
  EXPECT_EQ(linear(random_tensor({16}, 1), w).shape(), (Shape{5}));
}

TEST(Linear, StridedInputAndWeightViews) {
  const Tensor x = random_tensor({16, 40}, 1).transpose(0, 1);  // [40, 16], columns contiguous
  const Tensor whole = random_tensor({64, 32}, 2);
  const Tensor rows = whole.slice(0, 10, 31);                        // contiguous, offset
  const Tensor part = whole.slice(1, 8, 24);                         // rows 32 apart
  const Tensor flipped = random_tensor({16, 9}, 3).transpose(0, 1);  // must be copied
  const Tensor wide = random_tensor({40, 32}, 4);
  EXPECT_TRUE(near(linear(wide, rows), naive(wide, rows, {}), 2e-6));
  EXPECT_TRUE(near(linear(x, part), naive(x, part, {}), 2e-6));
  EXPECT_TRUE(near(linear(x, flipped), naive(x, flipped, {}), 2e-6));
  EXPECT_TRUE(near(linear(wide, rows, {}, WeightUse::constant), naive(wide, rows, {}), 2e-6));
}

TEST(Linear, EmptySizes) {
  const Tensor bias = random_tensor({3}, 1);
  EXPECT_EQ(linear(Tensor::zeros({0, 4}), random_tensor({3, 4}, 2), bias).shape(), (Shape{0, 3}));
  EXPECT_EQ(linear(Tensor::zeros({2, 4}), Tensor::zeros({0, 4})).shape(), (Shape{2, 0}));
  const Tensor y = linear(Tensor::zeros({2, 0}), Tensor::zeros({3, 0}), bias);
  EXPECT_TRUE(bits_are_equal(y.slice(0, 1, 2).view({3}), bias));
  EXPECT_TRUE(bits_are_equal(linear_grad_weight(Tensor::zeros({0, 3}), Tensor::zeros({0, 4})),
                             Tensor::zeros({3, 4})));
  EXPECT_TRUE(bits_are_equal(linear_grad_bias(Tensor::zeros({0, 3})), Tensor::zeros({3})));
}

TEST(Linear, GradientsMatchDefinitionInF32) {
  const Tensor x = random_tensor({150, 70}, 1), w = random_tensor({90, 70}, 2);
  const Tensor g = random_tensor({150, 90}, 3);
  // grad_x = g W is linear(g, W^T); grad_weight = g^T x is linear(g^T, x^T).
  EXPECT_TRUE(near(linear_grad_x(g, w), naive(g, w.transpose(0, 1), {}), 3e-6));
  const Tensor want = naive(g.transpose(0, 1), x.transpose(0, 1), {});
  EXPECT_TRUE(near(linear_grad_weight(g, x), want, 3e-6));
  EXPECT_TRUE(near(linear_grad_bias(g).view({90, 1}),
                   naive(g.transpose(0, 1), Tensor::full({1, 150}, 1), {}), 3e-6));
  Tensor sum = Tensor::full({90, 70}, 2);
  linear_accumulate_grad_weight(g, x, sum);
  for (std::int64_t i = 0; i < want.numel(); ++i) want.data<double>()[i] += 2;
  EXPECT_TRUE(near(sum, want, 3e-6));
}

// Products of bf16 numbers are exact in f32, so the naive sum of the rounded operands is the answer
// but for the order of additions.
TEST(Linear, Bf16OperandsMatchDefinition) {
  for (const auto& [m, n, k] :
       {LinearSizes{1, 1, 1}, LinearSizes{1, 77, 131}, LinearSizes{6, 64, 65},
        LinearSizes{33, 7, 19}, LinearSizes{129, 96, 63}, LinearSizes{150, 90, 1100}}) {
    const Tensor x = random_tensor({m, k}, 1).to(DType::bf16);
    const Tensor w = random_tensor({n, k}, 2).to(DType::bf16);
    const Tensor g = random_tensor({m, n}, 3).to(DType::bf16), b = random_tensor({n}, 4);
    const Tensor y = linear(x, w, b);
    EXPECT_EQ(y.dtype(), DType::f32);
    EXPECT_TRUE(near(y, naive(x, w, b), 3e-6)) << m << "x" << n << "x" << k;
    EXPECT_TRUE(near(linear(x, w), naive(x, w, {}), 3e-6));
    EXPECT_TRUE(near(linear_grad_x(g, w), naive(g, w.transpose(0, 1), {}), 3e-6));
    const Tensor want = naive(g.transpose(0, 1), x.transpose(0, 1), {});
    EXPECT_TRUE(near(linear_grad_weight(g, x), want, 3e-6));
    Tensor sum = Tensor::full({n, k}, 2);
    linear_accumulate_grad_weight(g, x, sum);
    for (std::int64_t i = 0; i < want.numel(); ++i) want.data<double>()[i] += 2;
    EXPECT_TRUE(near(sum, want, 3e-6));
  }
  EXPECT_EQ(linear(Tensor::zeros({0, 4}, DType::bf16), Tensor::zeros({3, 4}, DType::bf16)).shape(),
            (Shape{0, 3}));
}

TEST(Linear, Bf16SliceOfAStack) {
  const Tensor stack = random_tensor({2, 6, 40}, 1).to(DType::bf16);
  const Tensor w = stack.slice(0, 1, 2).view({6, 40}).slice(1, 3, 20);
  const Tensor x = random_tensor({5, 17}, 2).to(DType::bf16);
  EXPECT_TRUE(near(linear(x, w), naive(x, w, {}), 3e-6));
}

TEST(Linear, GradBiasOfManyRowsKeepsItsDigits) {
  const std::int64_t rows = 1 << 17;
  const Tensor sum = linear_grad_bias(Tensor::full({rows, 3}, 0.1));
  // A plain running sum in f32 is off by 1e-3 here; sums of 64 rows keep the error under 1e-5.
  EXPECT_NEAR(sum.data<float>()[2], rows * double(0.1F), 1e-4 * rows * 0.1);
}

TEST(Linear, GradientCheck) {
  for (const bool leading : {false, true}) {
    const Shape shape = leading ? Shape{2, 3, 5} : Shape{6, 5};
    const auto result =
        check_gradient([](const std::vector<Variable>& v) { return linear(v[0], v[1], v[2]); },
                       {random_tensor(shape, 1), random_tensor({4, 5}, 2), random_tensor({4}, 3)});
    EXPECT_TRUE(result.passed) << result.message;
  }
  const auto result =
      check_gradient([](const std::vector<Variable>& v) { return linear(v[0], v[1]); },
                     {random_tensor({40, 30}, 1), random_tensor({20, 30}, 2)});
  EXPECT_TRUE(result.passed) << result.message;
}

TEST(Linear, FrozenInputsGetNoGradient) {
  const Variable x(random_tensor({3, 4}, 1)), w(random_tensor({2, 4}, 2), true);
  const Variable b(random_tensor({2}, 3));
  linear(x, w, b).backward(Tensor::full({3, 2}, 1));
  EXPECT_TRUE(w.grad().defined());
  EXPECT_FALSE(x.grad().defined());
  EXPECT_FALSE(b.grad().defined());
}

TEST(Linear, PackedWeightFollowsItsVersion) {
  const Tensor x = random_tensor({24, 128}, 1), w = random_tensor({96, 128}, 2);
  const Tensor b = random_tensor({96}, 3);
  const std::size_t before = packed_weight_bytes();
  {
    const Tensor weight = w.clone();
    linear(x, weight, b, WeightUse::constant);
    EXPECT_EQ(packed_weight_bytes(), before) << "a weight used once must not be copied";
    EXPECT_TRUE(near(linear(x, weight, b, WeightUse::constant), naive(x, w, b), 2e-6));
    EXPECT_GE(packed_weight_bytes(), before + weight.bytes());
    // Other row counts share the copy.
    const std::size_t packed = packed_weight_bytes();
    for (const std::int64_t rows : {5, 6, 17, 100, 1000}) {
      const Tensor other = random_tensor({rows, 128}, 4);
      EXPECT_TRUE(near(linear(other, weight, b, WeightUse::constant), naive(other, w, b), 2e-6));
    }
    EXPECT_EQ(packed_weight_bytes(), packed);
    weight.fill(0.5);
    weight.mark_modified();
    for (int i = 0; i < 3; ++i)
      EXPECT_TRUE(near(linear(x, weight, b, WeightUse::constant), naive(x, weight, b), 2e-6));
    EXPECT_EQ(packed_weight_bytes(), packed) << "the old copy must have gone";
  }
  EXPECT_EQ(packed_weight_bytes(), before) << "the copy must go with its weight";
}

/// A resumed run uses its frozen weights for the first time where the undisturbed one does not.
TEST(Linear, AConstantWeightGivesTheSameBitsEachTime) {
  for (const std::int64_t rows : {5, 24, 100, 257})
    for (const auto& [n, k] : {std::pair{96, 128}, std::pair{260, 1200}, std::pair{768, 256}}) {
      const Tensor x = random_tensor({rows, k}, 1), w = random_tensor({n, k}, 2);
      const Tensor b = random_tensor({n}, 3);
      const Tensor first = linear(x, w, b, WeightUse::constant);
      for (int use = 2; use <= 3; ++use) {
        const Tensor again = linear(x, w, b, WeightUse::constant);
        EXPECT_EQ(std::memcmp(first.raw(), again.raw(), first.bytes()), 0)
            << rows << " rows, weight " << w.describe() << ", use " << use;
      }
    }
}

TEST(Linear, PackedSlicesOfOneParameter) {
  const Tensor stack = random_tensor({4, 64, 96}, 1), x = random_tensor({30, 96}, 2);
  for (int round = 0; round < 3; ++round)
    for (std::int64_t e = 0; e < 4; ++e) {
      const Tensor w = stack.slice(0, e, e + 1).view({64, 96});
      EXPECT_TRUE(near(linear(x, w, {}, WeightUse::constant), naive(x, w, {}), 2e-6));
    }
}

TEST(Linear, NoGradUsesConstantWeights) {
  const Variable x(random_tensor({24, 128}, 1)), w(random_tensor({96, 128}, 2), true);
  const std::size_t before = packed_weight_bytes();
  for (int i = 0; i < 3; ++i) linear(x, w);
  EXPECT_EQ(packed_weight_bytes(), before);
  const NoGrad off;
  for (int i = 0; i < 3; ++i)
    EXPECT_TRUE(near(linear(x, w).value(), naive(x.value(), w.value(), {}), 2e-6));
  EXPECT_GT(packed_weight_bytes(), before);
}

TEST(Linear, SameBitsForAnyNumberOfThreads) {
  const int before = thread_count();
  const Tensor g = random_tensor({900, 260}, 1), x = random_tensor({900, 1200}, 2);
  const Tensor w = random_tensor({260, 1200}, 3), b = random_tensor({260}, 4);
  const auto all = [&] {
    return std::vector<Tensor>{linear(x, w, b),
                               linear(x, w, b, WeightUse::constant),
                               linear_grad_x(g, w),
                               linear_grad_weight(g, x),
                               linear_grad_bias(g),
                               linear(x.slice(0, 0, 1), w, b),
                               linear(x.slice(0, 0, 40), w, b)};
  };
  linear(x, w, b, WeightUse::constant);
  set_thread_count(1);
  const auto want = all();
  for (const int threads : {2, 3, 4}) {
    set_thread_count(threads);
    const auto got = all();
    for (std::size_t i = 0; i < want.size(); ++i)
      EXPECT_TRUE(bits_are_equal(got[i], want[i])) << "result " << i << ", threads " << threads;
  }
  set_thread_count(before);
}

TEST(Linear, Errors) {
  const Tensor x = Tensor::zeros({2, 4}), w = Tensor::zeros({3, 4});
  EXPECT_TRUE(throws_with(
      [&] {
        linear(x, Tensor::zeros({3, 5}));
      },
      {"linear: x must be [..., 5]", "got f32 [2, 4]"}));
  EXPECT_TRUE(throws_with(
      [&] {
        linear(x, Tensor::zeros({3, 4, 1}));
      },
      {"linear: weight must have 2 dimensions", "[3, 4, 1]"}));
  EXPECT_TRUE(throws_with([&] { linear(x, w, Tensor::zeros({4})); },
                          {"linear: bias must be [3]", "got f32 [4]"}));
  EXPECT_TRUE(
      throws_with([&] { linear(x, w.to(DType::f64)); }, {"linear: weight must be f32", "got f64"}));
  EXPECT_TRUE(throws_with([&] { linear(x, w, Tensor::zeros({3}, DType::f64)); },
                          {"linear: bias must be f32"}));
  EXPECT_TRUE(throws_with([&] { linear(x.to(DType::i32), w.to(DType::i32)); },
                          {"linear: dtype must be f32 or f64, got i32"}));
  const Tensor narrow = x.to(DType::bf16);
  EXPECT_TRUE(throws_with([&] { linear(narrow, w); }, {"linear: weight must be bf16, got f32"}));
  EXPECT_TRUE(
      throws_with([&] { linear(narrow, w.to(DType::bf16), Tensor::zeros({3}, DType::bf16)); },
                  {"linear: bias must be f32, got bf16"}));
  EXPECT_TRUE(throws_with([&] { linear(Tensor(), w); }, {"linear: x must have", "undefined"}));
  EXPECT_TRUE(throws_with(
      [&] {
        linear_grad_x(x, Tensor::zeros({3, 4}));
      },
      {"linear: grad_y must be [..., 3]"}));
  EXPECT_TRUE(throws_with(
      [&] {
        linear_grad_weight(Tensor::zeros({3, 2}), x);
      },
      {"linear: grad_y must be [2, 2]"}));
}

}  // namespace
}  // namespace lectern
