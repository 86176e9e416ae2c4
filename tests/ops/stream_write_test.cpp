#include "core/ops/stream_write.h"

#include "core/parallel.h"
#include "tests/testing.h"

#include <cstring>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

struct WriteCase {
  Tensor x, mix, post, y, grad;
};

WriteCase make_case(std::int64_t tokens, std::int64_t n, std::int64_t width, DType dtype) {
  return {random_tensor({tokens, n, width}, 1, dtype), random_tensor({tokens, n, n}, 2, dtype),
          random_tensor({tokens, n}, 3, dtype), random_tensor({tokens, width}, 4, dtype),
          random_tensor({tokens, n, width}, 5, dtype)};
}

double at(const Tensor& tensor, std::int64_t i) { return tensor.data<double>()[i]; }

TEST(StreamWrite, MatchesLoops) {
  for (std::int64_t n = 1; n <= 8; ++n)
    for (const std::int64_t tokens : {1, 6})
      for (const std::int64_t width : {1, 16, 53}) {
        const WriteCase in = make_case(tokens, n, width, DType::f64);
        Tensor out = Tensor::zeros(in.x.shape(), DType::f64);
        Tensor grad_y = Tensor::zeros(in.y.shape(), DType::f64);
        Tensor grad_post = Tensor::zeros(in.post.shape(), DType::f64);
        for (std::int64_t t = 0; t < tokens; ++t)
          for (std::int64_t i = 0; i < n; ++i)
            for (std::int64_t c = 0; c < width; ++c) {
              double& to = out.data<double>()[(t * n + i) * width + c];
              to = at(in.post, t * n + i) * at(in.y, t * width + c);
              for (std::int64_t j = 0; j < n; ++j)
                to += at(in.mix, (t * n + i) * n + j) * at(in.x, (t * n + j) * width + c);
              const double g = at(in.grad, (t * n + i) * width + c);
              grad_y.data<double>()[t * width + c] += at(in.post, t * n + i) * g;
              grad_post.data<double>()[t * n + i] += at(in.y, t * width + c) * g;
            }
        EXPECT_TRUE(near(stream_write(in.x, in.mix, in.post, in.y), out, 1e-14));
        const auto gradients = stream_write_backward(in.grad, in.post, in.y);
        EXPECT_TRUE(near(gradients.y, grad_y, 1e-14));
        EXPECT_TRUE(near(gradients.post, grad_post, 1e-13));
        const auto single = [](const Tensor& tensor) { return tensor.to(DType::f32); };
        EXPECT_TRUE(near(stream_write(single(in.x), single(in.mix), single(in.post), single(in.y)),
                         out, 1e-6));
      }
}

TEST(StreamWrite, ThreadsDoNotMatter) {
  const WriteCase in = make_case(500, 4, 40, DType::f32);
  const Tensor want = stream_write(in.x, in.mix, in.post, in.y);
  const int before = thread_count();
  set_thread_count(5);
  const Tensor got = stream_write(in.x, in.mix, in.post, in.y);
  set_thread_count(before);
  EXPECT_EQ(std::memcmp(got.raw(), want.raw(), want.bytes()), 0);
}

TEST(StreamWrite, Empty) {
  const WriteCase in = make_case(0, 4, 5, DType::f32);
  EXPECT_EQ(stream_write(in.x, in.mix, in.post, in.y).shape(), (Shape{0, 4, 5}));
}

TEST(StreamWrite, Errors) {
  const WriteCase in = make_case(2, 3, 5, DType::f32);
  EXPECT_TRUE(throws_with([&] { stream_write(in.y.view({10}), in.mix, in.post, in.y); },
                          {"stream_write: x must be [..., n, C] with n from 1 to 8"}));
  EXPECT_TRUE(throws_with([&] { stream_write(in.x, in.post, in.post, in.y); },
                          {"stream_write: mix must be [2, 3, 3]"}));
  EXPECT_TRUE(throws_with([&] { stream_write(in.x, in.mix, in.mix, in.y); },
                          {"stream_write: post must be [2, 3]"}));
  EXPECT_TRUE(throws_with([&] { stream_write(in.x, in.mix, in.post, in.y.to(DType::f64)); },
                          {"stream_write: y must be f32"}));
  EXPECT_TRUE(throws_with([&] { stream_write_backward(in.x, in.post, in.x); },
                          {"stream_write: y must be [2, 5]"}));
  EXPECT_TRUE(throws_with(
      [&] {
        const auto half = [](const Tensor& tensor) { return tensor.to(DType::bf16); };
        stream_write(half(in.x), half(in.mix), half(in.post), half(in.y));
      },
      {"stream_write: dtype must be f32 or f64, got bf16"}));
}

}  // namespace
}  // namespace lectern
