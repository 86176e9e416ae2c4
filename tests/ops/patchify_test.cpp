#include "core/ops/patchify.h"

#include "autograd/gradient_check.h"
#include "autograd/ops/patchify.h"
#include "core/ops/conv2d.h"
#include "core/ops/linear.h"
#include "tests/testing.h"

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

TEST(Patchify, MatchesDefinitionAndInverts) {
  for (const DType dtype : {DType::f32, DType::f64})
    for (const int p : {1, 2, 3}) {
      const Tensor x = random_tensor({2, 3, 6, 12}, 1, dtype);
      const Tensor patches = patchify(x, p);
      const std::int64_t rows = 6 / p, columns = 12 / p, size = 3 * p * p;
      ASSERT_EQ(patches.shape(), (Shape{2, rows, columns, size}));
      const Tensor x64 = x.to(DType::f64), got = patches.to(DType::f64);
      for (std::int64_t at = 0; at < got.numel(); ++at) {
        const std::int64_t inside = at % size, j = at / size % columns;
        const std::int64_t i = at / size / columns % rows, n = at / size / columns / rows;
        const std::int64_t c = inside / (p * p), ky = inside / p % p, kx = inside % p;
        ASSERT_EQ(got.data<double>()[at],
                  x64.data<double>()[((n * 3 + c) * 6 + i * p + ky) * 12 + j * p + kx]);
      }
      EXPECT_TRUE(near(unpatchify(patches, p), x, 0));
    }
}

TEST(Patchify, PatchEmbeddingIsAConvolution) {
  const Tensor pixels = random_tensor({2, 3, 8, 12}, 1), weight = random_tensor({5, 3, 4, 4}, 2);
  const Tensor bias = random_tensor({5}, 3);
  const Tensor want = conv2d(pixels.permute({0, 2, 3, 1}), weight, bias, {4, 0});
  EXPECT_TRUE(near(linear(patchify(pixels, 4), weight.view({5, 48}), bias), want, 3e-6));
}

TEST(Patchify, EmptyAndStrided) {
  EXPECT_EQ(patchify(Tensor::zeros({0, 3, 4, 4}), 2).shape(), (Shape{0, 2, 2, 12}));
  const Tensor x = random_tensor({1, 4, 6, 3}, 1).permute({0, 3, 1, 2});
  EXPECT_TRUE(near(patchify(x, 2), patchify(x.contiguous(), 2), 0));
}

TEST(Patchify, GradientCheck) {
  const auto result =
      check_gradient([](const std::vector<Variable>& v) { return patchify(v[0], 2); },
                     {random_tensor({2, 3, 4, 6}, 1)});
  EXPECT_TRUE(result.passed) << result.message;
}

TEST(Patchify, Errors) {
  EXPECT_TRUE(throws_with(
      [] {
        patchify(Tensor::zeros({1, 3, 4, 6}), 4);
      },
      {"patchify: pixels must have sides that are multiples of patch_size=4", "[1, 3, 4, 6]"}));
  EXPECT_TRUE(throws_with(
      [] {
        patchify(Tensor::zeros({3, 4, 4}), 2);
      },
      {"patchify: pixels must have 4 dimensions"}));
  EXPECT_TRUE(throws_with(
      [] {
        patchify(Tensor::zeros({1, 3, 4, 4}), 0);
      },
      {"patchify: patch_size must be >= 1, got 0"}));
  EXPECT_TRUE(throws_with(
      [] {
        unpatchify(Tensor::zeros({1, 2, 2, 7}), 2);
      },
      {"patchify: patches must be [N, h, w, C * 2 * 2]"}));
  EXPECT_TRUE(throws_with(
      [] {
        patchify(Tensor::zeros({1, 1, 2, 2}, DType::u8), 2);
      },
      {"patchify: dtype must be f32 or f64, got u8"}));
}

}  // namespace
}  // namespace lectern
