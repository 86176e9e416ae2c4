#include "autograd/ops/rms_norm.h"

#include "core/ops/rms_norm.h"
#include "tests/ops/check_op.h"

#include <cmath>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

/// x * weight / sqrt(mean(x^2) + epsilon), in long double, one number at a time.
Tensor reference(const Tensor& x, const Tensor& weight, double epsilon) {
  const Tensor in = x.to(DType::f64).contiguous(), w = weight.to(DType::f64);
  const Tensor out = Tensor::empty(x.shape(), DType::f64);
  const std::int64_t columns = x.dim(-1);
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const double* row = in.data<double>() + i / columns * columns;
    long double squares = 0;
    for (std::int64_t c = 0; c < columns; ++c) squares += row[c] * row[c];
    const long double rms = std::sqrt(squares / static_cast<long double>(columns) + epsilon);
    out.data<double>()[i] =
        static_cast<double>(in.data<double>()[i] / rms * w.data<double>()[i % columns]);
  }
  return out;
}

Variable rms_norm_operation(const std::vector<Variable>& in) {
  return rms_norm(in[0], in[1], 1e-6);
}

TEST(RmsNorm, MatchesReference) {
  for (const Shape& shape : {Shape{1}, Shape{7}, Shape{1, 1}, Shape{3, 5}, Shape{2, 3, 17},
                             Shape{70, 129}, Shape{33, 896}}) {
    const Tensor weight = random_tensor({shape[shape.ndim() - 1]}, 2);
    const Tensor x = random_tensor(shape, 1);
    // f32: the sum of n squares in lanes, one root and two products: a few eps.
    EXPECT_TRUE(near(rms_norm(x, weight, 1e-6).output, reference(x, weight, 1e-6), 1e-6));
    const Tensor wide = x.to(DType::f64);
    EXPECT_TRUE(near(rms_norm(wide, weight.to(DType::f64), 1e-6).output,
                     reference(wide, weight, 1e-6), 1e-14));
  }
}

TEST(RmsNorm, EpsilonIsInsideTheRoot) {
  // A row of zeros stays zero; a tiny row is damped by epsilon: 1e-4 / sqrt(1e-8 + 1e-6).
  const Tensor x = Tensor::from<double>({0, 0, 1e-4, 1e-4}, {2, 2});
  const Tensor out = rms_norm(x, Tensor::full({2}, 1, DType::f64), 1e-6).output;
  EXPECT_EQ(out.data<double>()[0], 0.0);
  EXPECT_NEAR(out.data<double>()[2], 1e-4 / std::sqrt(1.01e-6), 1e-12);
}

TEST(RmsNorm, StridedInputIsTaken) {
  const Tensor x = random_tensor({6, 4}, 3).transpose(0, 1);
  const Tensor weight = random_tensor({6}, 4);
  EXPECT_TRUE(near(rms_norm(x, weight, 1e-5).output, reference(x, weight, 1e-5), 1e-6));
}

TEST(RmsNorm, Gradients) {
  for (const Shape& shape : {Shape{1, 1}, Shape{3, 5}, Shape{2, 2, 9}, Shape{40, 33}}) {
    const std::vector<Tensor> inputs{random_tensor(shape, 5),
                                     random_tensor({shape[shape.ndim() - 1]}, 6)};
    EXPECT_TRUE(testing::gradient_holds(rms_norm_operation, inputs));
    EXPECT_TRUE(testing::single_matches_double(rms_norm_operation, inputs, 2e-6));
  }
}

TEST(RmsNorm, ThreadsDoNotMatter) {
  EXPECT_TRUE(testing::threads_do_not_matter(
      rms_norm_operation, {random_tensor({1000, 96}, 7), random_tensor({96}, 8)}));
}

TEST(RmsNorm, ComputesOnlyTheGradientsAskedFor) {
  const Variable x(random_tensor({4, 3}, 1)), weight(random_tensor({3}, 2), true);
  const Variable out = rms_norm(x, weight, 1e-6);
  out.backward(random_tensor({4, 3}, 3));
  EXPECT_FALSE(x.grad().defined());
  EXPECT_TRUE(weight.grad().defined());
  const auto gradients =
      rms_norm_backward(out.value(), x.value(), weight.value(), Tensor::full({4}, 1), true, false);
  EXPECT_TRUE(gradients.x.defined());
  EXPECT_FALSE(gradients.weight.defined());
}

TEST(RmsNorm, Empty) {
  EXPECT_EQ(rms_norm(Tensor::empty({0, 5}), Tensor::empty({5}), 1e-6).output.shape(),
            (Shape{0, 5}));
  EXPECT_EQ(rms_norm(Tensor::empty({2, 0}), Tensor::empty({0}), 1e-6).output.shape(),
            (Shape{2, 0}));
  // No rows: the weight's gradient is zero, not garbage.
  const auto results = testing::output_and_gradients(
      rms_norm_operation, {Tensor::empty({0, 5}), random_tensor({5}, 1)});
  EXPECT_TRUE(near(results[2], Tensor::zeros({5}), 0));
}

TEST(RmsNorm, Errors) {
  const Tensor x = random_tensor({2, 4}, 1), weight = random_tensor({4}, 2);
  EXPECT_TRUE(throws_with([&] { rms_norm(Tensor::empty({}), weight, 1e-6); },
                          {"rms_norm: x must have 1 or more dimensions"}));
  EXPECT_TRUE(throws_with([&] { rms_norm(x, random_tensor({3}, 1), 1e-6); },
                          {"rms_norm: weight must be [4], got f32 [3] cpu"}));
  EXPECT_TRUE(throws_with([&] { rms_norm(x, weight.to(DType::f64), 1e-6); },
                          {"rms_norm: weight must be f32, got f64 [4] cpu"}));
  EXPECT_TRUE(throws_with([&] { rms_norm(x.to(DType::bf16), weight.to(DType::bf16), 1e-6); },
                          {"rms_norm: dtype must be f32 or f64, got bf16"}));
  EXPECT_TRUE(
      throws_with([&] { rms_norm(x, weight, 0); }, {"rms_norm: epsilon must be positive, got 0"}));
  EXPECT_TRUE(throws_with([&] { rms_norm(x, weight, NAN); }, {"epsilon must be positive"}));
  EXPECT_TRUE(
      throws_with([&] { rms_norm_backward(weight, x, weight, Tensor::empty({2}), true, true); },
                  {"rms_norm: grad_output must be [2, 4]"}));
}

}  // namespace
}  // namespace lectern
