#include "autograd/ops/elementwise.h"

#include "core/ops/elementwise.h"
#include "tests/ops/check_op.h"

#include <cmath>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

/// f on every element, in f64.
Tensor map(const Tensor& x, const std::function<double(double)>& f) {
  const Tensor out = x.to(DType::f64).clone();
  for (std::int64_t i = 0; i < out.numel(); ++i) out.data<double>()[i] = f(out.data<double>()[i]);
  return out;
}

double exact_gelu(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }
double exact_silu(double x) { return x / (1 + std::exp(-x)); }

TEST(Elementwise, AddAndMultiply) {
  for (const Shape& shape : {Shape{}, Shape{1}, Shape{7}, Shape{3, 5, 7}, Shape{130, 257}}) {
    const Tensor a = random_tensor(shape, 1), b = random_tensor(shape, 2);
    const Tensor sum = add(a, b), product = multiply(a, b);
    EXPECT_EQ(sum.shape(), shape);
    for (std::int64_t i = 0; i < a.numel(); ++i) {
      ASSERT_EQ(sum.data<float>()[i], a.data<float>()[i] + b.data<float>()[i]) << i;
      ASSERT_EQ(product.data<float>()[i], a.data<float>()[i] * b.data<float>()[i]) << i;
    }
  }
}

TEST(Elementwise, AddBroadcastsOverLeadingDimensions) {
  const Tensor a = random_tensor({5, 3, 7}, 1);
  for (const Shape& shape : {Shape{}, Shape{1}, Shape{7}, Shape{1, 7}, Shape{3, 7}, Shape{1, 3, 7},
                             Shape{1, 1, 1, 7}, Shape{5, 3, 7}}) {
    const Tensor b = random_tensor(shape, 2), out = add(a, b);
    EXPECT_EQ(out.shape(), a.shape());
    for (std::int64_t i = 0; i < a.numel(); ++i)
      ASSERT_EQ(out.data<float>()[i], a.data<float>()[i] + b.data<float>()[i % b.numel()]) << i;
  }
  // Long enough that a thread's range starts in the middle of b.
  const Tensor wide = random_tensor({3, 30011}, 3), row = random_tensor({30011}, 4);
  const Tensor out = add(wide, row);
  for (std::int64_t i = 0; i < wide.numel(); ++i)
    ASSERT_EQ(out.data<float>()[i], wide.data<float>()[i] + row.data<float>()[i % 30011]) << i;
}

TEST(Elementwise, ActivationsMatchTheExactFunctions) {
  // Random numbers and both tails.
  Tensor x = random_tensor({2003}, 1, DType::f32, 4.0);
  const std::vector<float> special{0.0f, -0.0f, 1e-20f, -1e-20f, 30.0f, -30.0f, 200.0f, -200.0f};
  std::copy(special.begin(), special.end(), x.data<float>());
  const Tensor wide = x.to(DType::f64);
  EXPECT_TRUE(near(gelu(wide), map(x, exact_gelu), 1e-15));
  EXPECT_TRUE(near(silu(wide), map(x, exact_silu), 1e-15));
  EXPECT_TRUE(near(gelu(x), map(x, exact_gelu), 2e-7));
  EXPECT_TRUE(near(silu(x), map(x, exact_silu), 2e-7));
  EXPECT_TRUE(near(scale(x, -0.125), map(x, [](double v) { return -0.125 * v; }), 0));
}

TEST(Elementwise, GeluIsTheErfForm) {
  // The tanh approximation gives 0.8411920 at 1, the exact form 0.8413447.
  EXPECT_NEAR(gelu(Tensor::full({}, 1.0, DType::f64)).item(), 0.8413447460685429, 1e-15);
}

TEST(Elementwise, StridedInputsAreTaken) {
  const Tensor a = random_tensor({4, 6}, 1), b = random_tensor({6, 4}, 2);
  const Tensor at = a.transpose(0, 1);
  EXPECT_TRUE(near(add(at, b), add(at.clone(), b), 0));
  EXPECT_TRUE(near(multiply(b, at), multiply(b, at.clone()), 0));
  EXPECT_TRUE(near(gelu(at), gelu(at.clone()), 0));
  EXPECT_TRUE(near(silu_backward(at, b), silu_backward(at.clone(), b), 0));
}

TEST(Elementwise, Gradients) {
  const auto sum = [](const std::vector<Variable>& in) { return add(in[0], in[1]); };
  const auto product = [](const std::vector<Variable>& in) { return multiply(in[0], in[1]); };
  const auto square = [](const std::vector<Variable>& in) { return multiply(in[0], in[0]); };
  const auto twice = [](const std::vector<Variable>& in) { return add(in[0], in[0]); };
  const auto times = [](const std::vector<Variable>& in) { return scale(in[0], -2.5); };
  const testing::Operation soft = [](const std::vector<Variable>& in) { return gelu(in[0]); };
  const testing::Operation swish = [](const std::vector<Variable>& in) { return silu(in[0]); };
  const Tensor x = random_tensor({3, 5, 7}, 1, DType::f32, 2.0), y = random_tensor({3, 5, 7}, 2);
  for (const Shape& shape : {Shape{7}, Shape{1, 5, 7}, Shape{3, 5, 7}, Shape{}}) {
    EXPECT_TRUE(testing::gradient_holds(sum, {x, random_tensor(shape, 3)}));
    EXPECT_TRUE(testing::single_matches_double(sum, {x, random_tensor(shape, 3)}, 1e-6));
  }
  EXPECT_TRUE(testing::gradient_holds(product, {x, y}));
  EXPECT_TRUE(testing::gradient_holds(square, {x}));
  EXPECT_TRUE(testing::gradient_holds(twice, {x}));
  EXPECT_TRUE(testing::gradient_holds(times, {x}));
  for (const auto& activation : {soft, swish}) {
    EXPECT_TRUE(testing::gradient_holds(activation, {x}));
    EXPECT_TRUE(testing::single_matches_double(activation, {x}, 1e-6));
  }
}

TEST(Elementwise, BroadcastGradientDoesNotDependOnThreads) {
  const auto sum = [](const std::vector<Variable>& in) { return add(in[0], in[1]); };
  EXPECT_TRUE(
      testing::threads_do_not_matter(sum, {random_tensor({1000, 96}, 1), random_tensor({96}, 2)}));
  EXPECT_TRUE(testing::threads_do_not_matter(
      sum, {random_tensor({3, 200, 96}, 1), random_tensor({1, 200, 96}, 2)}));
}

TEST(Elementwise, OnlyAskedForGradients) {
  const Variable a(random_tensor({3}, 1)), b(random_tensor({3}, 2), true);
  multiply(a, b).backward(random_tensor({3}, 3));
  add(a, b).backward(random_tensor({3}, 3));
  EXPECT_FALSE(a.grad().defined());
  EXPECT_TRUE(b.grad().defined());
}

TEST(Elementwise, Empty) {
  const Tensor none = Tensor::empty({0, 3});
  for (const Tensor& out : {add(none, none), add(none, Tensor::empty({3})), multiply(none, none),
                            scale(none, 2), gelu(none), silu(none), gelu_backward(none, none)})
    EXPECT_EQ(out.shape(), (Shape{0, 3}));
}

TEST(Elementwise, Errors) {
  const Tensor a = random_tensor({2, 3}, 1);
  for (const Shape& shape : {Shape{2}, Shape{2, 1}, Shape{3, 3}, Shape{2, 2, 3}})
    EXPECT_TRUE(throws_with([&] { add(a, Tensor::empty(shape)); },
                            {"add: b must have the last dimensions of f32 [2, 3] cpu, got"}));
  EXPECT_TRUE(throws_with([&] { add(a, a.to(DType::f64)); }, {"add: b must be f32, got f64"}));
  EXPECT_TRUE(throws_with([&] { multiply(a, Tensor::empty({3})); },
                          {"multiply: b must be [2, 3], got f32 [3] cpu"}));
  EXPECT_TRUE(throws_with([&] { gelu(a.to(DType::bf16)); },
                          {"gelu: x must be f32 or f64, got bf16 [2, 3] cpu"}));
  EXPECT_TRUE(throws_with([&] { silu(Tensor()); }, {"silu: x must be f32 or f64, got undefined"}));
  EXPECT_TRUE(throws_with([&] { scale(Tensor::zeros({2}, DType::i64), 2); },
                          {"scale: x must be f32 or f64, got i64"}));
  EXPECT_TRUE(throws_with([&] { gelu_backward(Tensor::empty({3}), a); },
                          {"gelu: grad_output must be [2, 3]"}));
}

}  // namespace
}  // namespace lectern
