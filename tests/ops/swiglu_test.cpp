#include "autograd/ops/swiglu.h"

#include "core/ops/swiglu.h"
#include "tests/ops/check_op.h"

#include <cmath>

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

Tensor reference(const Tensor& gate_up) {
  const Tensor in = gate_up.to(DType::f64).contiguous();
  Shape shape = gate_up.shape();
  const std::int64_t n = shape[shape.ndim() - 1] /= 2;
  const Tensor out = Tensor::empty(shape, DType::f64);
  for (std::int64_t i = 0; i < out.numel(); ++i) {
    const double gate = in.data<double>()[i / n * 2 * n + i % n];
    const double up = in.data<double>()[i / n * 2 * n + n + i % n];
    out.data<double>()[i] = gate / (1 + std::exp(-gate)) * up;
  }
  return out;
}

Variable swiglu_operation(const std::vector<Variable>& in) { return swiglu(in[0]); }

TEST(Swiglu, MatchesReference) {
  for (const Shape& shape :
       {Shape{2}, Shape{1, 2}, Shape{3, 10}, Shape{2, 3, 34}, Shape{70, 258}, Shape{9, 1792}}) {
    const Tensor x = random_tensor(shape, 1, DType::f32, 3.0);
    EXPECT_TRUE(near(swiglu(x), reference(x), 3e-7));
    EXPECT_TRUE(near(swiglu(x.to(DType::f64)), reference(x), 1e-15));
  }
}

TEST(Swiglu, ExtremeGates) {
  // silu(-200) is 0 and silu(200) is 200: no overflow of the exponential comes through.
  const Tensor out = swiglu(Tensor::from<float>({-200.0f, 200.0f, 2.0f, 3.0f}, {1, 4}));
  EXPECT_TRUE(near(out, Tensor::from<float>({0.0f, 600.0f}, {1, 2}), 1e-7));
  EXPECT_TRUE(near(swiglu_backward(Tensor::full({1, 2}, 1),
                                   Tensor::from<float>({-200.0f, 200.0f, 2.0f, 3.0f}, {1, 4})),
                   Tensor::from<float>({0.0f, 3.0f, 0.0f, 200.0f}, {1, 4}), 1e-7));
}

TEST(Swiglu, StridedInputIsTaken) {
  const Tensor x = random_tensor({6, 5}, 1).transpose(0, 1);
  EXPECT_TRUE(near(swiglu(x), reference(x), 3e-7));
}

TEST(Swiglu, Gradients) {
  for (const Shape& shape : {Shape{2}, Shape{3, 10}, Shape{2, 2, 18}, Shape{40, 66}}) {
    const Tensor x = random_tensor(shape, 2, DType::f32, 2.0);
    EXPECT_TRUE(testing::gradient_holds(swiglu_operation, {x}));
    EXPECT_TRUE(testing::single_matches_double(swiglu_operation, {x}, 1e-6));
  }
}

TEST(Swiglu, ThreadsDoNotMatter) {
  EXPECT_TRUE(testing::threads_do_not_matter(swiglu_operation, {random_tensor({500, 192}, 3)}));
}

TEST(Swiglu, Empty) {
  EXPECT_EQ(swiglu(Tensor::empty({0, 6})).shape(), (Shape{0, 3}));
  EXPECT_EQ(swiglu(Tensor::empty({4, 0})).shape(), (Shape{4, 0}));
  EXPECT_EQ(swiglu_backward(Tensor::empty({0, 3}), Tensor::empty({0, 6})).shape(), (Shape{0, 6}));
}

TEST(Swiglu, Errors) {
  EXPECT_TRUE(throws_with(
      [] {
        swiglu(Tensor::empty({2, 5}));
      },
      {"swiglu: gate_up must have an even last dimension, got f32 [2, 5] cpu"}));
  EXPECT_TRUE(throws_with([] { swiglu(Tensor::empty({})); }, {"even last dimension, got f32 []"}));
  EXPECT_TRUE(throws_with(
      [] {
        swiglu(Tensor::zeros({2, 4}, DType::i32));
      },
      {"swiglu: dtype must be f32 or f64, got i32"}));
  EXPECT_TRUE(throws_with(
      [] {
        swiglu_backward(Tensor::empty({2, 4}), Tensor::empty({2, 4}));
      },
      {"swiglu: grad_output must be [2, 2], got f32 [2, 4] cpu"}));
}

}  // namespace
}  // namespace lectern
