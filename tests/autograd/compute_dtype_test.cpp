#include "autograd/compute_dtype.h"

#include "autograd/ops/conv2d.h"
#include "autograd/ops/experts.h"
#include "autograd/ops/linear.h"
#include "autograd/ops/linear_cross_entropy.h"
#include "core/ops/convert.h"
#include "core/ops/linear.h"
#include "tests/testing.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

TEST(ComputeDType, IsAScopeOfThisThread) {
  EXPECT_EQ(compute_dtype(), DType::f32);
  {
    const ComputeDType outer(DType::bf16);
    EXPECT_EQ(compute_dtype(), DType::bf16);
    {
      const ComputeDType inner(DType::f32);
      EXPECT_EQ(compute_dtype(), DType::f32);
    }
    EXPECT_EQ(compute_dtype(), DType::bf16);
  }
  EXPECT_EQ(compute_dtype(), DType::f32);
  EXPECT_TRUE(throws_with([] { const ComputeDType scope(DType::f64); },
                          {"ComputeDType: dtype must be f32 or bf16, got f64"}));
  EXPECT_EQ(compute_dtype(), DType::f32);
}

TEST(ComputeDType, DoublesStayDoubles) {
  const Tensor x = random_tensor({3, 5}, 1, DType::f64), w = random_tensor({4, 5}, 2, DType::f64);
  const ComputeDType scope(DType::bf16);
  EXPECT_TRUE(same_bits(linear(Variable(x), Variable(w)).value(), linear(x, w)));
}

/// Backward outside the scope must use what forward used, and parameters get f32 gradients.
TEST(ComputeDType, LinearRoundsItsOperandsAndNothingElse) {
  const Tensor x = random_tensor({30, 20}, 1), w = random_tensor({10, 20}, 2);
  const Tensor b = random_tensor({10}, 3), g = random_tensor({30, 10}, 4);
  const Variable vx(x, true), vw(w, true), vb(b, true);
  Variable y;
  {
    const ComputeDType scope(DType::bf16);
    y = linear(vx, vw, vb);
  }
  y.backward(g);
  const Tensor x16 = convert(x, DType::bf16), w16 = convert(w, DType::bf16);
  const Tensor g16 = convert(g, DType::bf16);
  EXPECT_TRUE(same_bits(y.value(), linear(x16, w16, b)));
  EXPECT_TRUE(same_bits(vx.grad(), linear_grad_x(g16, w16)));
  EXPECT_TRUE(same_bits(vw.grad(), linear_grad_weight(g16, x16)));
  EXPECT_TRUE(same_bits(vb.grad(), linear_grad_bias(g))) << "no product: not rounded";
}

TEST(ComputeDType, WeightsAreConvertedOnceAVersion) {
  const Variable x(random_tensor({3, 8}, 1)), w(random_tensor({4, 8}, 2), true);
  const ComputeDType scope(DType::bf16);
  linear(x, w);
  const void* copy = bf16_copy_of(w.value()).raw();
  const Tensor before = linear(x, w).value();
  EXPECT_EQ(bf16_copy_of(w.value()).raw(), copy);
  w.value().fill(1);
  EXPECT_TRUE(same_bits(linear(x, w).value(), before)) << "nobody said that it changed";
  w.value().mark_modified();
  EXPECT_FALSE(same_bits(linear(x, w).value(), before));
}

/// Relative distance in norm of all gradients of f in bf16 from those in f32.
double gradient_distance(const std::function<Variable(const std::vector<Variable>&)>& f,
                         const std::vector<Tensor>& inputs, const Tensor& cotangent) {
  std::vector<std::vector<Tensor>> grads;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const ComputeDType scope(dtype);
    std::vector<Variable> leaves;
    for (const Tensor& input : inputs) leaves.emplace_back(input, true);
    f(leaves).backward(cotangent);
    grads.emplace_back();
    for (const Variable& leaf : leaves) grads.back().push_back(leaf.grad());
  }
  double worst = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    double difference = 0, norm = 0;
    for (std::int64_t j = 0; j < grads[0][i].numel(); ++j) {
      const double a = grads[0][i].data<float>()[j], b = grads[1][i].data<float>()[j];
      difference += (a - b) * (a - b);
      norm += a * a;
    }
    worst = std::max(worst, std::sqrt(difference / norm));
  }
  return worst;
}

// Rounding to bf16 is off by 2^-9 at most, 2^-9 / sqrt(3) in the mean: several roundings in a row
// stay below 1 %, and none at all would give 0.
TEST(ComputeDType, GradientsAreCloseToF32) {
  using Variables = std::vector<Variable>;
  const auto check = [](double distance) {
    EXPECT_LE(distance, 1e-2);
    EXPECT_GT(distance, 1e-5);
  };
  check(gradient_distance([](const Variables& v) { return linear(linear(v[0], v[1]), v[2], v[3]); },
                          {random_tensor({40, 33}, 1), random_tensor({21, 33}, 2),
                           random_tensor({9, 21}, 3), random_tensor({9}, 4)},
                          random_tensor({40, 9}, 5)));
  check(gradient_distance(
      [](const Variables& v) { return conv2d(v[0], v[1], {}, {.stride = 2, .padding = 1}); },
      {random_tensor({2, 9, 7, 5}, 1), random_tensor({6, 5, 3, 3}, 2)},
      random_tensor({2, 5, 4, 6}, 3)));
  const Tensor indices = Tensor::from<std::int32_t>({0, 1, 2, 0, 1, 1, 2, 0, 0, 2}, {5, 2});
  check(gradient_distance(
      [&](const Variables& v) { return experts(v[0], v[1], indices, v[2], v[3]); },
      {random_tensor({5, 24}, 1), random_tensor({5, 2}, 2), random_tensor({3, 30, 24}, 3),
       random_tensor({3, 24, 15}, 4)},
      random_tensor({5, 24}, 5)));
  const Tensor labels = Tensor::from<std::int32_t>({3, -100, 7, 0, 12}, {5});
  check(gradient_distance(
      [&](const Variables& v) { return linear_cross_entropy(v[0], v[1], labels).loss_sum; },
      {random_tensor({5, 24}, 1), random_tensor({13, 24}, 2)}, Tensor::full({}, 1)));
}

TEST(ComputeDType, RecomputeRunsInTheDtypeOfItsForward) {
  const Tensor x = random_tensor({12, 16}, 1), g = random_tensor({12, 16}, 3);
  std::vector<Tensor> grads;
  for (const bool recomputed : {false, true}) {
    const Variable leaf(x, true), w(random_tensor({16, 16}, 2), true);
    const auto segment = [&w](const std::vector<Variable>& in) {
      return std::vector<Variable>{linear(linear(in[0], w), w)};
    };
    std::vector<Variable> out;
    {
      const ComputeDType scope(DType::bf16);
      out = recomputed ? recompute(segment, {leaf}, {w}) : segment({leaf});
    }
    out[0].backward(g);
    EXPECT_EQ(compute_dtype(), DType::f32);
    grads.push_back(leaf.grad());
    grads.push_back(w.grad());
  }
  EXPECT_TRUE(same_bits(grads[0], grads[2]));
  EXPECT_TRUE(same_bits(grads[1], grads[3]));
}

}  // namespace
}  // namespace lectern
