#include "core/ops/stream_stack.h"

#include "autograd/ops/streams.h"
#include "tests/ops/check_op.h"

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

TEST(StreamStack, Values) {
  const Tensor x = Tensor::from<float>({1, 2, 3, 4}, {2, 2});
  EXPECT_TRUE(near(stream_expand(x, 3),
                   Tensor::from<float>({1, 2, 1, 2, 1, 2, 3, 4, 3, 4, 3, 4}, {2, 3, 2}), 0));
  EXPECT_TRUE(near(stream_expand(x, 1, 0.5), Tensor::from<float>({.5, 1, 1.5, 2}, {2, 1, 2}), 0));
  const Tensor y = Tensor::from<double>({1, 2, 3, 4, 5, 6}, {1, 3, 2});
  EXPECT_TRUE(near(stream_sum(y, 2.0), Tensor::from<double>({18, 24}, {1, 2}), 0));
}

TEST(StreamStack, Gradients) {
  for (const std::int64_t n : {1, 4, 5}) {
    EXPECT_TRUE(testing::gradient_holds(
        [n](const std::vector<Variable>& in) { return expand_streams(in[0], n).graph; },
        {random_tensor({3, 7}, 1)}));
    EXPECT_TRUE(testing::gradient_holds(
        [](const std::vector<Variable>& in) { return mean_of_streams(Streams(in[0])); },
        {random_tensor({3, n, 7}, 1)}));
  }
}

TEST(StreamStack, ThreadsDoNotMatter) {
  EXPECT_TRUE(testing::threads_do_not_matter(
      [](const std::vector<Variable>& in) { return mean_of_streams(expand_streams(in[0], 4)); },
      {random_tensor({900, 64}, 2)}));
}

TEST(StreamStack, Empty) {
  EXPECT_EQ(stream_expand(Tensor::empty({0, 3}), 4).shape(), (Shape{0, 4, 3}));
  EXPECT_EQ(stream_sum(Tensor::empty({2, 4, 0})).shape(), (Shape{2, 0}));
}

TEST(StreamStack, Errors) {
  EXPECT_TRUE(throws_with([] { stream_expand(Tensor::zeros({}), 2); },
                          {"stream_expand: x must have 1 or more dimensions"}));
  EXPECT_TRUE(throws_with([] { stream_expand(Tensor::zeros({2}), 0); },
                          {"stream_expand: streams must be at least 1, got 0"}));
  EXPECT_TRUE(throws_with([] { stream_sum(Tensor::zeros({2})); },
                          {"stream_sum: x must have 2 or more dimensions"}));
  EXPECT_TRUE(throws_with(
      [] {
        stream_sum(Tensor::zeros({2, 2}, DType::bf16));
      },
      {"stream_sum: dtype must be f32 or f64, got bf16"}));
}

}  // namespace
}  // namespace lectern
