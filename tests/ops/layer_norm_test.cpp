#include "autograd/ops/layer_norm.h"

#include "core/ops/layer_norm.h"
#include "tests/ops/check_op.h"

#include <cmath>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

Tensor reference(const Tensor& x, const Tensor& weight, const Tensor& bias, double epsilon) {
  const Tensor in = x.to(DType::f64).contiguous(), w = weight.to(DType::f64),
               b = bias.to(DType::f64);
  const Tensor out = Tensor::empty(x.shape(), DType::f64);
  const std::int64_t columns = x.dim(-1);
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const double* row = in.data<double>() + i / columns * columns;
    long double sum = 0, squares = 0;
    for (std::int64_t c = 0; c < columns; ++c) sum += row[c];
    const long double mean = sum / static_cast<long double>(columns);
    for (std::int64_t c = 0; c < columns; ++c) squares += (row[c] - mean) * (row[c] - mean);
    const long double deviation = std::sqrt(squares / static_cast<long double>(columns) + epsilon);
    out.data<double>()[i] = static_cast<double>((in.data<double>()[i] - mean) / deviation *
                                                    w.data<double>()[i % columns] +
                                                b.data<double>()[i % columns]);
  }
  return out;
}

std::vector<Tensor> make_inputs(const Shape& shape) {
  const Shape columns{shape[shape.ndim() - 1]};
  return {random_tensor(shape, 1), random_tensor(columns, 2), random_tensor(columns, 3)};
}

Variable operation(const std::vector<Variable>& in) {
  return layer_norm(in[0], in[1], in[2], 1e-6);
}

TEST(LayerNorm, MatchesReference) {
  for (const Shape& shape : {Shape{1}, Shape{7}, Shape{1, 1}, Shape{3, 5}, Shape{2, 3, 17},
                             Shape{70, 129}, Shape{33, 768}}) {
    const auto in = make_inputs(shape);
    EXPECT_TRUE(near(layer_norm(in[0], in[1], in[2], 1e-6).output,
                     reference(in[0], in[1], in[2], 1e-6), 2e-6));
    EXPECT_TRUE(near(
        layer_norm(in[0].to(DType::f64), in[1].to(DType::f64), in[2].to(DType::f64), 1e-6).output,
        reference(in[0], in[1], in[2], 1e-6), 1e-13));
  }
}

TEST(LayerNorm, LargeMeanDoesNotCancel) {
  // mean 1000, deviation 1: E[x^2] - E[x]^2 in f32 would lose 6 of 7 digits.
  const auto in = make_inputs({4, 256});
  const Tensor x = in[0].clone();
  for (std::int64_t i = 0; i < x.numel(); ++i) x.data<float>()[i] += 1000.0f;
  EXPECT_TRUE(
      near(layer_norm(x, in[1], in[2], 1e-6).output, reference(x, in[1], in[2], 1e-6), 2e-4));
}

TEST(LayerNorm, ConstantRowGivesTheBias) {
  const auto in = make_inputs({2, 8});
  const Tensor out = layer_norm(Tensor::full({2, 8}, 3.5), in[1], in[2], 1e-6).output;
  EXPECT_TRUE(near(out.slice(0, 1, 2).view({8}), in[2], 0));
}

TEST(LayerNorm, StridedInputIsTaken) {
  const Tensor x = random_tensor({6, 4}, 3).transpose(0, 1);
  const Tensor weight = random_tensor({6}, 4), bias = random_tensor({6}, 5);
  EXPECT_TRUE(
      near(layer_norm(x, weight, bias, 1e-5).output, reference(x, weight, bias, 1e-5), 2e-6));
}

TEST(LayerNorm, Gradients) {
  for (const Shape& shape : {Shape{1, 1}, Shape{3, 5}, Shape{2, 2, 9}, Shape{40, 33}}) {
    EXPECT_TRUE(testing::gradient_holds(operation, make_inputs(shape)));
    if (shape[shape.ndim() - 1] > 1) {
      EXPECT_TRUE(testing::single_matches_double(operation, make_inputs(shape), 5e-6));
    }
  }
}

TEST(LayerNorm, ThreadsDoNotMatter) {
  EXPECT_TRUE(testing::threads_do_not_matter(operation, make_inputs({1000, 96})));
}

TEST(LayerNorm, ComputesOnlyTheGradientsAskedFor) {
  const auto in = make_inputs({4, 3});
  const Variable x(in[0], true), weight(in[1]), bias(in[2]);
  layer_norm(x, weight, bias, 1e-6).backward(random_tensor({4, 3}, 4));
  EXPECT_TRUE(x.grad().defined());
  const LayerNormSaved saved{in[0], in[1], Tensor::full({4}, 0), Tensor::full({4}, 1)};
  EXPECT_FALSE(layer_norm_backward(in[0], saved, true, false).weight.defined());
  EXPECT_FALSE(layer_norm_backward(in[0], saved, false, true).x.defined());
}

TEST(LayerNorm, Empty) {
  EXPECT_EQ(layer_norm(Tensor::empty({0, 5}), Tensor::empty({5}), Tensor::empty({5}), 1e-6)
                .output.shape(),
            (Shape{0, 5}));
  EXPECT_EQ(layer_norm(Tensor::empty({2, 0}), Tensor::empty({0}), Tensor::empty({0}), 1e-6)
                .output.shape(),
            (Shape{2, 0}));
  const auto results = testing::output_and_gradients(
      operation, {Tensor::empty({0, 5}), random_tensor({5}, 1), random_tensor({5}, 2)});
  EXPECT_TRUE(near(results[2], Tensor::zeros({5}), 0));
  EXPECT_TRUE(near(results[3], Tensor::zeros({5}), 0));
}

TEST(LayerNorm, Errors) {
  const auto in = make_inputs({2, 4});
  EXPECT_TRUE(throws_with([&] { layer_norm(Tensor::empty({}), in[1], in[2], 1e-6); },
                          {"layer_norm: x must have 1 or more dimensions"}));
  EXPECT_TRUE(throws_with([&] { layer_norm(in[0], random_tensor({3}, 1), in[2], 1e-6); },
                          {"layer_norm: weight must be [4], got f32 [3] cpu"}));
  EXPECT_TRUE(throws_with(
      [&] {
        layer_norm(in[0], in[1], random_tensor({1, 4}, 1), 1e-6);
      },
      {"layer_norm: bias must be [4], got f32 [1, 4] cpu"}));
  EXPECT_TRUE(throws_with([&] { layer_norm(in[0], in[1], in[2].to(DType::f64), 1e-6); },
                          {"layer_norm: bias must be f32, got f64"}));
  EXPECT_TRUE(throws_with([&] { layer_norm(in[0], in[1], in[2], -1); },
                          {"layer_norm: epsilon must be positive, got -1"}));
  const Tensor integers = Tensor::zeros({2, 4}, DType::i32), row = Tensor::zeros({4}, DType::i32);
  EXPECT_TRUE(throws_with([&] { layer_norm(integers, row, row, 1e-6); },
                          {"layer_norm: dtype must be f32 or f64, got i32"}));
  const LayerNormSaved saved{in[0], in[1], Tensor::empty({2}), Tensor::empty({2})};
  EXPECT_TRUE(throws_with([&] { layer_norm_backward(in[1], saved, true, true); },
                          {"layer_norm: grad_output must be [2, 4]"}));
}

}  // namespace
}  // namespace lectern
