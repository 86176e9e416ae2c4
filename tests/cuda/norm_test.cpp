// rms_norm and layer_norm against their CPU twins.
#include "core/ops/layer_norm.h"
#include "core/ops/rms_norm.h"
#include "tests/cuda/check_cuda.h"

namespace lectern {
namespace {

using testing::Both;
using testing::both;
using testing::kStorageTypes;
using testing::matches;
using testing::random_both;

// Rows of one, odd, one warp of packs, more than a block's threads; more rows than blocks.
const std::vector<Shape> kNormShapes = {{0, 8},   {1, 1},    {3, 5},   {2, 2, 64},
                                        {37, 40}, {3, 1280}, {2, 4104}};

Both weight_of(std::int64_t columns, std::uint64_t seed) {
  return both(random_both({columns}, seed).cpu);
}

TEST(CudaRmsNorm, MatchesTheCpu) {
  for (const DType dtype : kStorageTypes)
    for (const Shape& shape : kNormShapes) {
      SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), shape));
      const Both x = random_both(shape, 1, dtype), grad = random_both(shape, 2, dtype);
      const std::int64_t columns = shape[shape.ndim() - 1];
      const Both weight = weight_of(columns, 3);
      const RmsNormOutput got = rms_norm(x.cuda, weight.cuda, 1e-6);
      const RmsNormOutput want = rms_norm(x.cpu, weight.cpu, 1e-6);
      EXPECT_TRUE(matches(got.output, want.output, dtype, 8));
      EXPECT_TRUE(matches(got.inverse_rms, want.inverse_rms, DType::f32, 8));
      for (const bool need_x : {true, false})
        for (const bool need_weight : {true, false}) {
          const auto a = rms_norm_backward(grad.cuda, x.cuda, weight.cuda, got.inverse_rms, need_x,
                                           need_weight);
          const auto b =
              rms_norm_backward(grad.cpu, x.cpu, weight.cpu, want.inverse_rms, need_x, need_weight);
          EXPECT_TRUE(matches(a.x, b.x, dtype, 16));
          EXPECT_TRUE(matches(a.weight, b.weight, DType::f32, 16));
        }
    }
}

TEST(CudaLayerNorm, MatchesTheCpu) {
  for (const DType dtype : kStorageTypes)
    for (const Shape& shape : kNormShapes) {
      SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), shape));
      const Both x = random_both(shape, 1, dtype), grad = random_both(shape, 2, dtype);
      const std::int64_t columns = shape[shape.ndim() - 1];
      const Both weight = weight_of(columns, 3), bias = weight_of(columns, 4);
      const LayerNormOutput got = layer_norm(x.cuda, weight.cuda, bias.cuda, 1e-6);
      const LayerNormOutput want = layer_norm(x.cpu, weight.cpu, bias.cpu, 1e-6);
      EXPECT_TRUE(matches(got.output, want.output, dtype, 8));
      for (const bool need_x : {true, false})
        for (const bool need_affine : {true, false}) {
          const auto a =
              layer_norm_backward(grad.cuda, {x.cuda, weight.cuda, got.mean, got.inverse_deviation},
                                  need_x, need_affine);
          const auto b =
              layer_norm_backward(grad.cpu, {x.cpu, weight.cpu, want.mean, want.inverse_deviation},
                                  need_x, need_affine);
          // With one column the gradient is a difference of equals, divided by sqrt(epsilon).
          if (columns > 1) {
            EXPECT_TRUE(matches(a.x, b.x, dtype, 32));
          }
          EXPECT_TRUE(matches(a.weight, b.weight, DType::f32, 32));
          EXPECT_TRUE(matches(a.bias, b.bias, DType::f32, 16));
        }
    }
}

TEST(CudaLayerNorm, ALargeMeanCostsNoAccuracy) {
  Tensor x = random_both({4, 512}, 9).cpu;
  for (std::int64_t i = 0; i < x.numel(); ++i) x.data<float>()[i] += 1000.0f;
  const Both input = both(x), weight = weight_of(512, 3), bias = weight_of(512, 4);
  EXPECT_TRUE(matches(layer_norm(input.cuda, weight.cuda, bias.cuda, 1e-6).output,
                      layer_norm(input.cpu, weight.cpu, bias.cpu, 1e-6).output, DType::f32, 100));
}

TEST(CudaNorm, TheSameBitsInEveryRun) {
  const Both x = random_both({77, 96}, 1), grad = random_both({77, 96}, 2), w = weight_of(96, 3);
  const auto run = [&] {
    const auto y = rms_norm(x.cuda, w.cuda, 1e-6);
    return rms_norm_backward(grad.cuda, x.cuda, w.cuda, y.inverse_rms, true, true).weight;
  };
  EXPECT_TRUE(testing::is_equal(run(), run()));
}

}  // namespace
}  // namespace lectern
