#include "autograd/variable.h"

#include "tests/testing.h"

#include <cmath>
#include <functional>
#include <vector>

namespace lectern {
namespace {

using testing::near;
using testing::throws_with;

// Three tiny operations of our own, so that this file tests the graph and nothing else.
Tensor map2(const Tensor& a, const Tensor& b, double (*f)(double, double)) {
  Tensor out = Tensor::empty(a.shape(), DType::f64);
  for (std::int64_t i = 0; i < a.numel(); ++i)
    out.data<double>()[i] = f(a.data<double>()[i], b.data<double>()[i]);
  return out;
}
Tensor times(const Tensor& a, const Tensor& b) {
  return map2(a, b, [](double x, double y) { return x * y; });
}

Variable own_multiply(const Variable& a, const Variable& b) {
  const Tensor x = a.value(), y = b.value();
  return record("multiply", times(x, y), {a, b}, [=](const Tensor& g) -> std::vector<Tensor> {
    return {times(g, y), times(g, x)};
  });
}

/// Hands the very same gradient tensor to both inputs.
Variable own_add(const Variable& a, const Variable& b) {
  return record("add", map2(a.value(), b.value(), [](double x, double y) { return x + y; }), {a, b},
                [](const Tensor& g) -> std::vector<Tensor> {
                  return {g, g};
                });
}

Variable leaf(std::vector<double> values, bool requires_grad = true) {
  const Shape shape{static_cast<std::int64_t>(values.size())};
  return Variable(Tensor::from(values, shape), requires_grad);
}

std::vector<double> values(const Tensor& t) {
  const Tensor flat = t.contiguous();
  return {flat.data<double>(), flat.data<double>() + flat.numel()};
}
using Values = std::vector<double>;
Tensor ones(std::int64_t n) { return Tensor::full({n}, 1, DType::f64); }

TEST(Variable, ChainRule) {
  const Variable a = leaf({2, 3}), b = leaf({5, 7});
  own_multiply(own_multiply(a, b), b).backward(ones(2));  // a b^2
  EXPECT_EQ(values(a.grad()), (Values{25, 49}));
  EXPECT_EQ(values(b.grad()), (Values{20, 42}));
}

TEST(Variable, SharedSubexpressionRunsOnce) {
  const Variable x = leaf({3});
  int runs = 0;
  const Variable square = record("square", times(x.value(), x.value()), {x},
                                 [&](const Tensor& g) -> std::vector<Tensor> {
                                   ++runs;
                                   return {times(g, Tensor::full({1}, 6, DType::f64))};
                                 });
  own_add(own_multiply(square, square), square).backward(ones(1));  // x^4 + x^2
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(values(x.grad()), (Values{4 * 27 + 6}));
}

TEST(Variable, DiamondsOfManyLevels) {
  Variable y = leaf({1});
  const Variable x = y;
  for (int i = 0; i < 40; ++i) y = own_add(y, y);  // a walk over paths would take 2^40 steps
  y.backward(ones(1));
  EXPECT_EQ(values(x.grad()), (Values{std::pow(2.0, 40)}));
}

TEST(Variable, LongChainsAreFreedWithoutRecursion) {
  Variable y = leaf({1});
  const Variable x = y, two = leaf({1}, false);
  for (int i = 0; i < 20'000; ++i) y = own_multiply(y, two);
  y.backward(ones(1));
  EXPECT_EQ(values(x.grad()), (Values{1}));
}

TEST(Variable, AccumulatesOverBackwardCallsAndClears) {
  const Variable x = leaf({2});
  for (int i = 0; i < 3; ++i) own_multiply(x, x).backward(ones(1));
  EXPECT_EQ(values(x.grad()), (Values{12}));
  Variable y = x;
  y.clear_grad();
  EXPECT_FALSE(x.grad().defined());
}

TEST(Variable, LeavesOwnTheirGradients) {
  const Variable a = leaf({1, 2}), b = leaf({3, 4});
  const Tensor cotangent = ones(2);
  own_add(a, b).backward(cotangent);
  a.grad().fill(100);  // as clipping does, in place
  EXPECT_EQ(values(b.grad()), (Values{1, 1}));
  EXPECT_EQ(values(cotangent), (Values{1, 1}));
  own_add(a, a).backward(cotangent);
  EXPECT_EQ(values(a.grad()), (Values{102, 102}));
  EXPECT_EQ(values(cotangent), (Values{1, 1}));
}

TEST(Variable, GradientsMayBeStrided) {
  const Variable x(testing::random_tensor({2, 3}, 1, DType::f64), true);
  const auto transpose = [](const Variable& v) {
    return record("transpose", v.value().transpose(0, 1), {v},
                  [](const Tensor& g) -> std::vector<Tensor> { return {g.transpose(0, 1)}; });
  };
  const Tensor g = testing::random_tensor({3, 2}, 2, DType::f64);
  for (int i = 0; i < 3; ++i) transpose(x).backward(g.clone());
  const Tensor three = Tensor::full({3, 2}, 3, DType::f64);
  EXPECT_TRUE(near(x.grad(), times(g, three).transpose(0, 1), 1e-15));
}

TEST(Variable, ConstantsAndFrozenLeaves) {
  const Variable x = leaf({2}), c = leaf({3}, false);
  own_multiply(x, c).backward(ones(1));
  EXPECT_FALSE(c.grad().defined());
  EXPECT_FALSE(own_multiply(c, c).requires_grad());
  EXPECT_FALSE(own_multiply(x.detach(), c).requires_grad());
  Variable frozen = x;
  frozen.set_requires_grad(false);
  EXPECT_FALSE(own_multiply(x, x).requires_grad());
  EXPECT_FALSE(x.grad().defined());
}

TEST(Variable, NoGradRecordsNothing) {
  const Variable x = leaf({2});
  {
    const NoGrad off;
    EXPECT_FALSE(grad_enabled());
    EXPECT_FALSE(own_multiply(x, x).requires_grad());
    { const NoGrad nested; }
    EXPECT_FALSE(grad_enabled());
  }
  EXPECT_TRUE(grad_enabled());
  EXPECT_TRUE(own_multiply(x, x).requires_grad());
}

TEST(Variable, SeveralOutputsOfWhichOneIsUsed) {
  const Variable x = leaf({2, 5});
  const auto both = record_many("both", {x.value().clone(), x.value().clone()}, {x},
                                [](const std::vector<Tensor>& g) -> std::vector<Tensor> {
                                  EXPECT_FALSE(g[0].defined());
                                  return {g[1]};
                                });
  own_multiply(both[1], both[1]).backward(ones(2));
  EXPECT_EQ(values(x.grad()), (Values{4, 10}));
}

TEST(Variable, BackwardFreesWhatItHeld) {
  const Variable x = leaf({2});
  const auto held = std::make_shared<int>(0);
  const Variable y = record("hold", x.value().clone(), {x},
                            [held](const Tensor& g) -> std::vector<Tensor> { return {g}; });
  EXPECT_EQ(held.use_count(), 2);
  y.backward(ones(1));
  EXPECT_EQ(held.use_count(), 1);
}

TEST(Variable, Errors) {
  const Variable x = leaf({2, 3});
  const Variable y = own_multiply(x, x);
  EXPECT_TRUE(throws_with([&] { y.backward(); }, {"must have one element, got f64 [2]"}));
  EXPECT_TRUE(throws_with([&] { y.backward(ones(3)); }, {"cotangent must be [2]"}));
  y.backward(ones(2));
  EXPECT_TRUE(
      throws_with([&] { y.backward(ones(2)); }, {"graph of multiply was already run and freed"}));
  EXPECT_TRUE(throws_with([&] { leaf({1}, false).backward(); }, {"nothing in this graph"}));
  Variable none;
  for (const std::function<void()>& use : std::initializer_list<std::function<void()>>{
           [&] { none.value(); }, [&] { none.grad(); }, [&] { none.clear_grad(); },
           [&] { none.set_grad(ones(1)); }, [&] { none.set_value(ones(1)); },
           [&] { none.set_requires_grad(false); }})
    EXPECT_TRUE(throws_with(use, {"Variable: used before"}));
  Variable result = own_multiply(x, x);
  EXPECT_TRUE(throws_with([&] { result.set_requires_grad(false); }, {"only a leaf"}));
  Variable target = x;
  EXPECT_TRUE(throws_with([&] { target.set_value(ones(3)); }, {"new value must be [2]"}));
  const Variable wrong =
      record("wrong", ones(1), {leaf({1})}, [](const Tensor&) { return std::vector<Tensor>{}; });
  EXPECT_TRUE(throws_with([&] { wrong.backward(); }, {"wrong gave 0 gradients for 1 inputs"}));
  const Variable misshapen = record("misshapen", ones(1), {leaf({1, 2})},
                                    [](const Tensor& g) { return std::vector<Tensor>{g}; });
  EXPECT_TRUE(throws_with([&] { misshapen.backward(); }, {"gradient of a leaf must be [2]"}));
}

}  // namespace
}  // namespace lectern
