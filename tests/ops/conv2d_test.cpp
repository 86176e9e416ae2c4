#include "core/ops/conv2d.h"

#include "autograd/gradient_check.h"
#include "autograd/ops/conv2d.h"
#include "core/ops/linear.h"
#include "core/parallel.h"
#include "tests/testing.h"

#include <cstring>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

struct ConvolutionCase {
  Shape x, weight;
  Conv2dArgs args;
};
// Pointwise, the neck, the compressor, left-over rows and columns, no channels to speak of, a
// batch.
const std::vector<ConvolutionCase> kCases = {
    {{1, 4, 5, 3}, {2, 3, 1, 1}, {1, 0}},      {{2, 4, 5, 3}, {2, 3, 1, 1}, {2, 1}},
    {{1, 8, 8, 16}, {24, 16, 3, 3}, {1, 1}},   {{2, 7, 9, 5}, {7, 5, 3, 3}, {2, 1}},
    {{1, 6, 7, 2}, {3, 2, 2, 4}, {3, 0}},      {{3, 3, 3, 1}, {1, 1, 3, 3}, {1, 2}},
    {{1, 16, 16, 64}, {128, 64, 3, 3}, {2, 1}}};

/// The sum of the header, one output at a time; `visit` gets flat indices of y, x and weight.
template <typename F>
void for_products(const ConvolutionCase& c, const Shape& y, F&& visit) {
  const auto &x = c.x, &w = c.weight;
  for (std::int64_t n = 0; n < x[0]; ++n)
    for (std::int64_t i = 0; i < y[1]; ++i)
      for (std::int64_t j = 0; j < y[2]; ++j)
        for (std::int64_t o = 0; o < w[0]; ++o)
          for (std::int64_t ky = 0; ky < w[2]; ++ky)
            for (std::int64_t kx = 0; kx < w[3]; ++kx) {
              const std::int64_t row = i * c.args.stride + ky - c.args.padding;
              const std::int64_t column = j * c.args.stride + kx - c.args.padding;
              if (row < 0 || row >= x[1] || column < 0 || column >= x[2]) continue;
              for (std::int64_t ch = 0; ch < x[3]; ++ch)
                visit(((n * y[1] + i) * y[2] + j) * w[0] + o,
                      ((n * x[1] + row) * x[2] + column) * x[3] + ch,
                      ((o * w[1] + ch) * w[2] + ky) * w[3] + kx);
            }
}

Shape out_shape(const ConvolutionCase& c) {
  const auto size = [&](int i) {
    return (c.x[i] + 2 * c.args.padding - c.weight[i + 1]) / c.args.stride + 1;
  };
  return {c.x[0], size(1), size(2), c.weight[0]};
}

TEST(Conv2d, ForwardAndGradientsMatchDefinition) {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16})
    for (const ConvolutionCase& c : kCases) {
      SCOPED_TRACE(to_string(c.x) + to_string(c.weight) + std::string(name_of(dtype)));
      const Shape shape = out_shape(c);
      const Tensor x = random_tensor(c.x, 1).to(dtype), w = random_tensor(c.weight, 2).to(dtype);
      const Tensor b = random_tensor({c.weight[0]}, 3).to(dtype == DType::f64 ? dtype : DType::f32);
      const Tensor g = random_tensor(shape, 4).to(dtype);
      const Tensor x64 = x.to(DType::f64), w64 = w.to(DType::f64), g64 = g.to(DType::f64);
      Tensor y = Tensor::zeros(shape, DType::f64), gx = Tensor::zeros(c.x, DType::f64);
      Tensor gw = Tensor::zeros(c.weight, DType::f64);
      for_products(c, shape, [&](std::int64_t at_y, std::int64_t at_x, std::int64_t at_w) {
        y.data<double>()[at_y] += x64.data<double>()[at_x] * w64.data<double>()[at_w];
        gx.data<double>()[at_x] += g64.data<double>()[at_y] * w64.data<double>()[at_w];
        gw.data<double>()[at_w] += g64.data<double>()[at_y] * x64.data<double>()[at_x];
      });
      const double bound = dtype == DType::f64 ? 1e-14 : 3e-6;
      EXPECT_TRUE(near(conv2d(x, w, {}, c.args), y, bound));
      for (std::int64_t i = 0; i < y.numel(); ++i)
        y.data<double>()[i] += b.to(DType::f64).data<double>()[i % c.weight[0]];
      EXPECT_TRUE(near(conv2d(x, w, b, c.args), y, bound));
      EXPECT_TRUE(near(conv2d_grad_x(g, w, c.x, c.args), gx, bound));
      EXPECT_TRUE(near(conv2d_grad_weight(g, x, c.weight, c.args), gw, bound));
    }
}

TEST(Conv2d, GradientCheck) {
  for (const ConvolutionCase& c : {ConvolutionCase{{2, 4, 5, 3}, {4, 3, 3, 3}, {1, 1}},
                                   ConvolutionCase{{1, 6, 5, 2}, {3, 2, 3, 2}, {2, 1}},
                                   ConvolutionCase{{2, 3, 4, 5}, {6, 5, 1, 1}, {1, 0}}}) {
    const auto result = check_gradient(
        [&](const std::vector<Variable>& v) { return conv2d(v[0], v[1], v[2], c.args); },
        {random_tensor(c.x, 1), random_tensor(c.weight, 2), random_tensor({c.weight[0]}, 3)});
    EXPECT_TRUE(result.passed) << to_string(c.weight) << ": " << result.message;
  }
}

TEST(Conv2d, StridedInput) {
  const Tensor channels_first = random_tensor({2, 3, 6, 6}, 1), w = random_tensor({4, 3, 3, 3}, 2);
  const Tensor x = channels_first.permute({0, 2, 3, 1});
  EXPECT_TRUE(near(conv2d(x, w, {}, {1, 1}),
                   conv2d(x.to(DType::f64).contiguous(), w.to(DType::f64), {}, {1, 1}), 3e-6));
}

TEST(Conv2d, NoImages) {
  const Tensor x = Tensor::zeros({0, 8, 8, 3}), w = random_tensor({4, 3, 3, 3}, 1);
  const Tensor y = conv2d(x, w, {}, {2, 1});
  EXPECT_EQ(y.shape(), (Shape{0, 4, 4, 4}));
  EXPECT_EQ(conv2d_grad_x(y, w, x.shape(), {2, 1}).shape(), x.shape());
  EXPECT_TRUE(near(conv2d_grad_weight(y, x, w.shape(), {2, 1}), Tensor::zeros(w.shape()), 0));
}

TEST(Conv2d, SameBitsForAnyNumberOfThreads) {
  const int before = thread_count();
  const Tensor x = random_tensor({2, 32, 32, 48}, 1), w = random_tensor({64, 48, 3, 3}, 2);
  const Tensor g = random_tensor({2, 16, 16, 64}, 3);
  const Tensor x16 = x.to(DType::bf16), w16 = w.to(DType::bf16), g16 = g.to(DType::bf16);
  const auto all = [&] {
    return std::vector<Tensor>{conv2d(x, w, {}, {2, 1}),
                               conv2d_grad_x(g, w, x.shape(), {2, 1}),
                               conv2d_grad_weight(g, x, w.shape(), {2, 1}),
                               conv2d(x16, w16, {}, {2, 1}),
                               conv2d_grad_x(g16, w16, x.shape(), {2, 1}),
                               conv2d_grad_weight(g16, x16, w.shape(), {2, 1})};
  };
  set_thread_count(1);
  const auto want = all();
  for (const int threads : {2, 3, 4}) {
    set_thread_count(threads);
    const auto got = all();
    for (std::size_t i = 0; i < want.size(); ++i)
      EXPECT_EQ(std::memcmp(got[i].raw(), want[i].raw(), want[i].bytes()), 0)
          << "result " << i << ", threads " << threads;
  }
  set_thread_count(before);
}

TEST(Conv2d, Errors) {
  const Tensor x = Tensor::zeros({1, 4, 4, 3}), w = Tensor::zeros({2, 3, 3, 3});
  EXPECT_TRUE(throws_with(
      [&] {
        conv2d(Tensor::zeros({4, 4, 3}), w);
      },
      {"conv2d: x must have 4 dimensions"}));
  EXPECT_TRUE(throws_with(
      [&] {
        conv2d(x, Tensor::zeros({2, 4, 3, 3}));
      },
      {"conv2d: weight must be [O, C=3, kh, kw], got [2, 4, 3, 3]"}));
  EXPECT_TRUE(throws_with(
      [&] {
        conv2d(x, Tensor::zeros({2, 3, 5, 5}));
      },
      {"kernel within the padded 4 x 4 image"}));
  EXPECT_TRUE(throws_with([&] { conv2d(x, w, {}, {0, 0}); }, {"stride must be >= 1", "got 0"}));
  EXPECT_TRUE(throws_with([&] { conv2d(x, w, {}, {1, -1}); }, {"padding >= 0", "-1"}));
  EXPECT_TRUE(throws_with([&] { conv2d(x, w, Tensor::zeros({3})); }, {"conv2d: bias must be [2]"}));
  EXPECT_TRUE(
      throws_with([&] { conv2d(x, w.to(DType::f64)); }, {"conv2d: weight must be f32, got f64"}));
  EXPECT_TRUE(throws_with(
      [&] {
        conv2d_grad_x(Tensor::zeros({1, 3, 3, 2}), w, x.shape());
      },
      {"conv2d: grad_y must be [1, 2, 2, 2]"}));
}

}  // namespace
}  // namespace lectern
