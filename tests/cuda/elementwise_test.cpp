// accumulate, dropout, elementwise, swiglu, reduce against their CPU twins.
#include "core/ops/elementwise.h"

#include "core/ops/accumulate.h"
#include "core/ops/dropout.h"
#include "core/ops/reduce.h"
#include "core/ops/swiglu.h"
#include "tests/cuda/check_cuda.h"

namespace lectern {
namespace {

using testing::Both;
using testing::both;
using testing::gpu;
using testing::kStorageTypes;
using testing::matches;
using testing::random_both;

// Nothing, one, odd, not a multiple of a pack, several blocks, more than one turn of the grid.
const std::vector<Shape> kShapes = {{0},        {1},      {3},    {5, 7},
                                    {2, 3, 41}, {16, 64}, {1031}, {67, 2048}};

TEST(CudaElementwise, MatchesTheCpu) {
  for (const DType dtype : kStorageTypes)
    for (const Shape& shape : kShapes) {
      SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), shape));
      const Both a = random_both(shape, 1, dtype), b = random_both(shape, 2, dtype);
      EXPECT_TRUE(matches(add(a.cuda, b.cuda), add(a.cpu, b.cpu), dtype));
      EXPECT_TRUE(matches(multiply(a.cuda, b.cuda), multiply(a.cpu, b.cpu), dtype));
      EXPECT_TRUE(matches(scale(a.cuda, -0.7), scale(a.cpu, -0.7), dtype));
      EXPECT_TRUE(matches(gelu(a.cuda), gelu(a.cpu), dtype));
      EXPECT_TRUE(matches(silu(a.cuda), silu(a.cpu), dtype));
      EXPECT_TRUE(matches(gelu_backward(b.cuda, a.cuda), gelu_backward(b.cpu, a.cpu), dtype, 2));
      EXPECT_TRUE(matches(silu_backward(b.cuda, a.cuda), silu_backward(b.cpu, a.cpu), dtype, 2));
      accumulate(a.cuda, b.cuda);
      accumulate(a.cpu, b.cpu);
      EXPECT_TRUE(matches(a.cuda, a.cpu, dtype));
    }
}

TEST(CudaElementwise, AddRepeatsItsSecondOperand) {
  for (const DType dtype : kStorageTypes)
    for (const auto& [large, small] : std::vector<std::pair<Shape, Shape>>{
             {{5, 8}, {8}}, {{5, 7}, {7}}, {{3, 4, 6}, {4, 6}}, {{3, 2, 2, 24}, {1, 2, 2, 24}}}) {
      const Both a = random_both(large, 3, dtype), b = random_both(small, 4, dtype);
      EXPECT_TRUE(matches(add(a.cuda, b.cuda), add(a.cpu, b.cpu), dtype)) << small.ndim();
    }
}

TEST(CudaElementwise, ViewsThatBeginAnywhere) {
  for (const DType dtype : kStorageTypes) {
    const Both x = random_both({67}, 5, dtype);
    const Tensor a = x.cuda.slice(0, 1, 34), b = x.cuda.slice(0, 34, 67);
    EXPECT_TRUE(matches(add(a, b), add(x.cpu.slice(0, 1, 34), x.cpu.slice(0, 34, 67)), dtype));
  }
}

TEST(CudaSwiglu, MatchesTheCpu) {
  for (const DType dtype : kStorageTypes)
    for (const Shape& shape :
         {Shape{0, 6}, Shape{1, 2}, Shape{3, 10}, Shape{5, 64}, Shape{2, 3, 176}}) {
      SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), shape));
      const Both x = random_both(shape, 1, dtype);
      Shape half = shape;
      half[half.ndim() - 1] /= 2;
      const Both grad = random_both(half, 2, dtype);
      EXPECT_TRUE(matches(swiglu(x.cuda), swiglu(x.cpu), dtype));
      EXPECT_TRUE(
          matches(swiglu_backward(grad.cuda, x.cuda), swiglu_backward(grad.cpu, x.cpu), dtype, 2));
    }
}

TEST(CudaDropout, DropsWhatTheCpuDrops) {
  const RandomKey key = Random(3, "cuda").key();
  for (const Shape& shape : kShapes) {
    const Both x = random_both(shape, 6);
    EXPECT_TRUE(testing::is_equal(dropout(x.cuda, 0.3, key).to(Device{}), dropout(x.cpu, 0.3, key)))
        << shape.ndim();
  }
}

TEST(CudaReduce, MatchesTheCpu) {
  for (const DType dtype : kStorageTypes)
    for (const Shape& shape : kShapes) {
      SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), shape));
      const Both x = random_both(shape, 6, dtype);
      EXPECT_TRUE(matches(sum(x.cuda), sum(x.cpu), dtype, 4));
      EXPECT_NEAR(squared_norm(x.cuda), squared_norm(x.cpu), 1e-9 * squared_norm(x.cpu));
      const Shape last{shape[shape.ndim() - 1]};
      EXPECT_TRUE(matches(sum_leading(x.cuda, last), sum_leading(x.cpu, last), dtype, 10));
    }
  const Both tall = random_both({1000, 3}, 7), none = both(Tensor::empty({0, 5}));
  EXPECT_TRUE(matches(sum_leading(tall.cuda, {3}), sum_leading(tall.cpu, {3}), DType::f32, 100));
  EXPECT_TRUE(matches(sum_leading(none.cuda, {5}), sum_leading(none.cpu, {5}), DType::f32));
}

TEST(CudaReduce, TheSameBitsInEveryRun) {
  const Both x = random_both({333, 129}, 8);
  EXPECT_TRUE(testing::is_equal(sum_leading(x.cuda, {129}), sum_leading(x.cuda, {129})));
  EXPECT_TRUE(testing::is_equal(sum(x.cuda), sum(x.cuda)));
}

}  // namespace
}  // namespace lectern
