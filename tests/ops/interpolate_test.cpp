#include "autograd/ops/interpolate.h"

#include "core/ops/interpolate.h"
#include "tests/ops/check_op.h"

#include <algorithm>
#include <cmath>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

/// Dense [output, input] matrix of the weights.
Tensor dense(const ResampleWeights& weights) {
  const Tensor out = Tensor::zeros({weights.output, weights.input}, DType::f64);
  for (std::size_t o = 0; o < weights.first.size(); ++o)
    for (std::int64_t at = weights.start[o]; at < weights.start[o + 1]; ++at)
      out.data<double>()[static_cast<std::int64_t>(o) * weights.input + weights.first[o] + at -
                         weights.start[o]] = weights.weight[static_cast<std::size_t>(at)];
  return out;
}

/// Keys' kernel in its published piecewise form for any a; here a = -1/2.
double keys(double t, double a = -0.5) {
  t = std::abs(t);
  if (t <= 1) return (a + 2) * t * t * t - (a + 3) * t * t + 1;
  if (t < 2) return a * t * t * t - 5 * a * t * t + 8 * a * t - 4 * a;
  return 0;
}

/// Weights from the definition: the kernel, stretched when shrinking, at the distance of every
/// input pixel's centre, normalised.
Tensor bicubic_reference(std::int64_t input, std::int64_t output) {
  const Tensor out = Tensor::zeros({output, input}, DType::f64);
  const double scale = static_cast<double>(input) / static_cast<double>(output);
  for (std::int64_t o = 0; o < output; ++o) {
    double* row = out.data<double>() + o * input;
    double total = 0;
    for (std::int64_t i = 0; i < input; ++i) {
      const double distance = static_cast<double>(i) + 0.5 - (static_cast<double>(o) + 0.5) * scale;
      total += row[i] = keys(distance / std::max(scale, 1.0));
    }
    for (std::int64_t i = 0; i < input; ++i) row[i] /= total;
  }
  return out;
}

TEST(Interpolate, BicubicWeightsMatchTheDefinition) {
  for (const auto& [input, output] : {std::pair<std::int64_t, std::int64_t>{64, 48},
                                      {64, 40},
                                      {14, 64},
                                      {7, 3},
                                      {3, 7},
                                      {1, 5},
                                      {5, 1},
                                      {2, 2},
                                      {100, 3}})
    EXPECT_TRUE(
        near(dense(bicubic_weights(input, output)), bicubic_reference(input, output), 1e-13))
        << input << " -> " << output;
}

TEST(Interpolate, BicubicMatchesTorch) {
  // torch.nn.functional.interpolate(x, size=(4 or 9, 6), mode="bicubic", antialias=True), f64,
  // where x [1, 1, 6, 6] holds the squares of its row number.
  const Tensor x = Tensor::from<double>({0, 1, 4, 9, 16, 25}, {6, 1});
  const Tensor down = resample(x, 0, bicubic_weights(6, 4));
  const Tensor up = resample(x, 0, bicubic_weights(6, 9));
  EXPECT_TRUE(near(down,
                   Tensor::from<double>(
                       {0.15857605178, 2.977029096478, 10.886676875957, 22.278317152104}, {4, 1}),
                   1e-12));
  EXPECT_TRUE(near(
      up,
      Tensor::from<double>({-0.065789473684, 0.294117647059, 1.361111111111, 3.361111111111, 6.25,
                            10.027777777778, 14.694444444444, 21.176470588235, 25.592105263158},
                           {9, 1}),
      1e-12));
}

TEST(Interpolate, LinearPositions) {
  // 127 -> 95 and back: the straight line i -> i maps to the sampled position, clamped at the ends.
  for (const auto& [input, output] :
       {std::pair<std::int64_t, std::int64_t>{127, 95}, {95, 127}, {27, 13}, {1, 4}, {9, 2}}) {
    Tensor line = Tensor::empty({input, 1}, DType::f64);
    for (std::int64_t i = 0; i < input; ++i) line.data<double>()[i] = static_cast<double>(i);
    const Variable out = interpolate_linear(Variable(line), output);
    for (std::int64_t o = 0; o < output; ++o) {
      const double position = (static_cast<double>(o) + 0.5) * static_cast<double>(input) /
                                  static_cast<double>(output) -
                              0.5;
      EXPECT_NEAR(out.value().data<double>()[o],
                  std::clamp(position, 0.0, static_cast<double>(input - 1)), 1e-12);
    }
  }
}

TEST(Interpolate, ConstantsStayConstant) {
  const Variable out = interpolate_bicubic(Variable(Tensor::full({1, 64, 64, 3}, 0.7)), 48, 90);
  EXPECT_TRUE(near(out.value(), Tensor::full({1, 48, 90, 3}, 0.7), 1e-6));
}

TEST(Interpolate, TwoDimensionsAreTheTwoMatrices) {
  const Tensor x = random_tensor({2, 6, 5, 3}, 1, DType::f64);
  const Tensor rows = bicubic_reference(6, 4), columns = bicubic_reference(5, 8);
  const Tensor want = Tensor::zeros({2, 4, 8, 3}, DType::f64);
  for (std::int64_t n = 0; n < 2; ++n)
    for (std::int64_t h = 0; h < 4; ++h)
      for (std::int64_t w = 0; w < 8; ++w)
        for (std::int64_t c = 0; c < 3; ++c)
          for (std::int64_t i = 0; i < 6; ++i)
            for (std::int64_t j = 0; j < 5; ++j)
              want.data<double>()[((n * 4 + h) * 8 + w) * 3 + c] +=
                  rows.data<double>()[h * 6 + i] * columns.data<double>()[w * 5 + j] *
                  x.data<double>()[((n * 6 + i) * 5 + j) * 3 + c];
  EXPECT_TRUE(near(interpolate_bicubic(Variable(x), 4, 8).value(), want, 1e-13));
}

TEST(Interpolate, EqualSizesReturnTheInput) {
  const Variable x(random_tensor({1, 4, 5, 2}, 1), true), table(random_tensor({7, 3}, 2), true);
  EXPECT_EQ(interpolate_bicubic(x, 4, 5).state(), x.state());
  EXPECT_EQ(interpolate_linear(table, 7).state(), table.state());
}

TEST(Interpolate, TransposeIsTheTransposedMatrix) {
  for (const auto& [input, output] :
       {std::pair<std::int64_t, std::int64_t>{64, 48}, {7, 3}, {3, 7}, {1, 5}, {30, 2}})
    for (const ResampleWeights& weights :
         {bicubic_weights(input, output), linear_weights(input, output)})
      EXPECT_TRUE(near(dense(transpose(weights)), dense(weights).transpose(0, 1), 0))
          << input << " -> " << output;
}

TEST(Interpolate, Gradients) {
  for (const auto& [height, width] :
       {std::pair<std::int64_t, std::int64_t>{3, 4}, {8, 9}, {6, 2}, {1, 1}, {6, 5}}) {
    const auto f = [height = height, width = width](const std::vector<Variable>& in) {
      return interpolate_bicubic(in[0], height, width);
    };
    EXPECT_TRUE(testing::gradient_holds(f, {random_tensor({1, 6, 5, 2}, 1)}));
    EXPECT_TRUE(testing::single_matches_double(f, {random_tensor({1, 6, 5, 2}, 1)}, 1e-6));
  }
  for (const std::int64_t length : {1, 4, 9, 20}) {
    const auto f = [length](const std::vector<Variable>& in) {
      return interpolate_linear(in[0], length);
    };
    EXPECT_TRUE(testing::gradient_holds(f, {random_tensor({9, 3}, 1)}));
  }
  EXPECT_TRUE(testing::threads_do_not_matter(
      [](const std::vector<Variable>& in) { return interpolate_bicubic(in[0], 48, 40); },
      {random_tensor({1, 64, 64, 12}, 1)}));
}

TEST(Interpolate, EmptyAndStrided) {
  EXPECT_EQ(interpolate_bicubic(Variable(Tensor::empty({0, 4, 4, 2})), 3, 3).shape(),
            (Shape{0, 3, 3, 2}));
  const Tensor x = random_tensor({5, 4}, 1).transpose(0, 1);
  EXPECT_TRUE(
      near(resample(x, 0, linear_weights(4, 3)), resample(x.clone(), 0, linear_weights(4, 3)), 0));
}

TEST(Interpolate, Errors) {
  const Variable x(random_tensor({1, 4, 4, 2}, 1)), table(random_tensor({5, 2}, 1));
  EXPECT_TRUE(throws_with([&] { interpolate_bicubic(table, 2, 2); },
                          {"interpolate_bicubic: x must have 4 dimensions, got f32 [5, 2] cpu"}));
  EXPECT_TRUE(throws_with([&] { interpolate_bicubic(x, 0, 4); },
                          {"interpolate: sizes must be 1 or more, got 4 -> 0"}));
  EXPECT_TRUE(throws_with([&] { interpolate_linear(x, 4); },
                          {"interpolate_linear: table must have 2 dimensions"}));
  EXPECT_TRUE(throws_with([&] { interpolate_linear(table, -3); },
                          {"interpolate: sizes must be 1 or more, got 5 -> -3"}));
  EXPECT_TRUE(throws_with(
      [&] {
        interpolate_linear(Variable(Tensor::empty({0, 2})), 3);
      },
      {"interpolate: sizes must be 1 or more, got 0 -> 3"}));
  EXPECT_TRUE(throws_with([&] { resample(table.value(), 1, linear_weights(5, 3)); },
                          {"interpolate: dimension 1 of x must be 5, got f32 [5, 2] cpu"}));
  EXPECT_TRUE(
      throws_with([&] { resample(Tensor::zeros({5}, DType::i32), 0, linear_weights(5, 3)); },
                  {"interpolate: dtype must be f32 or f64, got i32"}));
}

}  // namespace
}  // namespace lectern
