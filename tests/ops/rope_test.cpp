// Rotary embedding against the definition in f64, and against cosines that transformers computed.
#include "autograd/ops/rope.h"

#include "autograd/gradient_check.h"
#include "tests/testing.h"

#include <cmath>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

RopeArgs make_args(std::int64_t heads, std::int64_t kv_heads, std::int64_t dim, double theta) {
  RopeArgs args;
  args.heads = heads;
  args.kv_heads = kv_heads;
  args.head_dim = dim;
  args.theta = theta;
  return args;
}

/// q cos + rotate_half(q) sin, one element at a time.
Tensor naive(const Tensor& x, const RopeArgs& args) {
  const Tensor out = x.clone();
  const std::int64_t T = x.dim(1), columns = x.dim(2), D = args.head_dim;
  for (std::int64_t row = 0; row < x.dim(0) * T; ++row)
    for (std::int64_t c = 0; c < (args.heads + args.kv_heads) * D; ++c) {
      const double position = args.positions.defined() ? args.positions.data<std::int32_t>()[row]
                                                       : double(args.offset + row % T);
      const std::int64_t d = c % D;
      const double angle = position / std::pow(args.theta, 2.0 * double(d % (D / 2)) / double(D));
      const double* from = x.data<double>() + row * columns;
      const double partner = d < D / 2 ? -from[c + D / 2] : from[c - D / 2];
      out.data<double>()[row * columns + c] = from[c] * std::cos(angle) + partner * std::sin(angle);
    }
  return out;
}

TEST(Rope, MatchesDefinition) {
  for (const RopeArgs& args : {make_args(4, 2, 8, 1e4), make_args(1, 1, 2, 1e6),
                               make_args(3, 3, 10, 500.0), make_args(2, 1, 64, 1e6)}) {
    const std::int64_t columns = (args.heads + 2 * args.kv_heads) * args.head_dim;
    const Tensor x = random_tensor({2, 19, columns}, 1, DType::f64);
    EXPECT_TRUE(near(rope(x, args), naive(x, args), 1e-14));
    // Angles of up to 19 are rounded to float: 19 * 2^-24.
    EXPECT_TRUE(near(rope(x.to(DType::f32), args).to(DType::f64), naive(x, args), 3e-6));
  }
}

TEST(Rope, PositionsAndOffset) {
  RopeArgs args = make_args(2, 1, 6, 1e4);
  const Tensor x = random_tensor({2, 3, 24}, 2, DType::f64);
  args.offset = 700;
  EXPECT_TRUE(near(rope(x, args), naive(x, args), 1e-13));
  args.offset = 0;
  // Beyond the cached table too.
  for (const std::int32_t far : {900, 200000}) {
    args.positions = Tensor::from(std::vector<std::int32_t>{4, 0, far, 7, 7, 1}, {2, 3});
    EXPECT_TRUE(near(rope(x, args), naive(x, args), 1e-10));
  }
}

TEST(Rope, AnglesRoundLikeTransformers) {
  // transformers 5.23, LlamaRotaryEmbedding, float32: head_dim 64, theta 1e6, positions 3 and 511;
  // cosines and sines of frequencies 0, 1, 5, 17, 31.
  const double expected[2][2][5] = {
      {{-0.989992499, -0.3684569, 0.940589309, 0.999998093, 1},
       {0.141120002, 0.929644823, 0.339546382, 0.0019481437, 4.6197797e-06}},
      {{-0.471678883, 0.385721713, -0.777007043, 0.945446432, 0.999999702},
       {0.881770372, -0.92261517, 0.629491925, 0.325777531, 0.000786902383}}};
  const int frequencies[5] = {0, 1, 5, 17, 31};
  RopeArgs args = make_args(1, 1, 64, 1e6);
  args.positions = Tensor::from(std::vector<std::int32_t>{3, 511}, {1, 2});
  const Tensor x = Tensor::zeros({1, 2, 192});
  for (int t = 0; t < 2; ++t)
    for (int d = 0; d < 32; ++d) x.data<float>()[t * 192 + d] = 1;
  const Tensor out = rope(x, args);
  for (int t = 0; t < 2; ++t)
    for (int i = 0; i < 5; ++i) {
      EXPECT_NEAR(out.data<float>()[t * 192 + frequencies[i]], expected[t][0][i], 1e-6);
      EXPECT_NEAR(out.data<float>()[t * 192 + 32 + frequencies[i]], expected[t][1][i], 1e-6);
    }
}

TEST(Rope, InPlaceAndInverse) {
  const RopeArgs args = make_args(4, 2, 8, 1e4);
  const Tensor x = random_tensor({2, 300, 64}, 3);
  const Tensor want = rope(x, args);
  EXPECT_TRUE(near(rope_backward(want, args), x, 1e-6));
  rope_in_place(x, args);
  EXPECT_TRUE(near(x, want, 0));
}

TEST(Rope, GradientCheck) {
  RopeArgs args = make_args(2, 1, 4, 1e4);
  args.positions = Tensor::from(std::vector<std::int32_t>{0, 3, 9, 1, 2, 5}, {2, 3});
  const GradientCheckResult result =
      check_gradient([&](const std::vector<Variable>& in) { return rope(in[0], args); },
                     {random_tensor({2, 3, 16}, 4, DType::f64)});
  EXPECT_TRUE(result.passed) << result.message;
}

TEST(Rope, EmptyAndErrors) {
  const RopeArgs args = make_args(2, 1, 4, 1e4);
  EXPECT_EQ(rope(Tensor::empty({1, 0, 16}), args).shape(), (Shape{1, 0, 16}));
  const Tensor x = Tensor::zeros({1, 2, 16});
  EXPECT_TRUE(
      throws_with([&] { rope(x, make_args(2, 1, 5, 1e4)); }, {"rope: head_dim must be even"}));
  EXPECT_TRUE(throws_with([&] { rope(x, make_args(2, 1, 4, 0)); }, {"theta must be positive"}));
  EXPECT_TRUE(throws_with([&] { rope(x, make_args(3, 1, 4, 1e4)); }, {"qkv must be [1, 2, 20]"}));
  EXPECT_TRUE(throws_with([&] { rope(x.to(DType::i32), args); }, {"f32 or f64"}));
  RopeArgs wrong = args;
  wrong.positions = Tensor::from(std::vector<std::int32_t>{0, -2}, {1, 2});
  EXPECT_TRUE(throws_with([&] { rope(x, wrong); }, {"positions must be at least 0, got -2"}));
  wrong.positions = Tensor::from(std::vector<std::int32_t>{0}, {1, 1});
  EXPECT_TRUE(throws_with([&] { rope(x, wrong); }, {"positions must be [1, 2]"}));
  wrong = args;
  wrong.offset = -1;
  EXPECT_TRUE(throws_with([&] { rope(x, wrong); }, {"offset must be at least 0"}));
}

}  // namespace
}  // namespace lectern
