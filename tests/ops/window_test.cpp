// Window partition and merge against the definition by coordinates.
#include "autograd/ops/window.h"

#include "autograd/gradient_check.h"
#include "tests/testing.h"

namespace lectern {
namespace {

using testing::near;
using testing::random_tensor;
using testing::throws_with;

/// Zero-padded, permuted copy, element by element.
Tensor naive_partition(const Tensor& x, std::int64_t k) {
  const std::int64_t B = x.dim(0), h = x.dim(1), w = x.dim(2), C = x.dim(3);
  const std::int64_t nh = (h + k - 1) / k, nw = (w + k - 1) / k;
  const Tensor out = Tensor::zeros({B * nh * nw, k * k, C}, x.dtype());
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t y = 0; y < h; ++y)
      for (std::int64_t z = 0; z < w; ++z)
        for (std::int64_t c = 0; c < C; ++c) {
          const std::int64_t window = (b * nh + y / k) * nw + z / k, token = y % k * k + z % k;
          out.data<float>()[(window * k * k + token) * C + c] =
              x.data<float>()[((b * h + y) * w + z) * C + c];
        }
  return out;
}

TEST(Window, PartitionAndMerge) {
  const Shape shapes[] = {
      {1, 1, 1, 1}, {2, 5, 7, 3}, {1, 4, 6, 8}, {2, 14, 14, 5}, {1, 64, 64, 48}};
  for (const Shape& shape : shapes)
    for (const std::int64_t k : {1, 2, 3, 14}) {
      const Tensor x = random_tensor(shape, 1);
      const Tensor windows = window_partition(x, k);
      EXPECT_TRUE(near(windows, naive_partition(x, k), 0)) << to_string(shape) << " " << k;
      EXPECT_TRUE(near(window_merge(windows, k, shape[0], shape[1], shape[2]), x, 0));
    }
}

TEST(Window, F64AndEmpty) {
  const Tensor x = random_tensor({2, 5, 3, 2}, 2, DType::f64);
  EXPECT_TRUE(near(window_partition(x, 2).to(DType::f32), naive_partition(x.to(DType::f32), 2), 0));
  EXPECT_EQ(window_partition(Tensor::empty({0, 5, 5, 2}), 3).shape(), (Shape{0, 9, 2}));
  EXPECT_EQ(window_merge(Tensor::empty({0, 9, 2}), 3, 0, 5, 5).shape(), (Shape{0, 5, 5, 2}));
}

TEST(Window, GradientCheck) {
  const GradientCheckResult partition =
      check_gradient([](const std::vector<Variable>& in) { return window_partition(in[0], 3); },
                     {random_tensor({2, 4, 5, 2}, 3, DType::f64)});
  EXPECT_TRUE(partition.passed) << partition.message;
  const GradientCheckResult merge = check_gradient(
      [](const std::vector<Variable>& in) { return window_merge(in[0], 3, 1, 4, 5); },
      {random_tensor({4, 9, 2}, 4, DType::f64)});
  EXPECT_TRUE(merge.passed) << merge.message;
}

TEST(Window, Errors) {
  const Tensor x = Tensor::zeros({1, 4, 4, 2});
  EXPECT_TRUE(
      throws_with([&] { window_partition(x, 0); }, {"window_partition: window must be", "got 0"}));
  EXPECT_TRUE(throws_with(
      [&] {
        window_partition(x.view({4, 4, 2}), 2);
      },
      {"window_partition: x"}));
  EXPECT_TRUE(throws_with([&] { window_partition(x.transpose(1, 2), 2); }, {"contiguous"}));
  EXPECT_TRUE(throws_with([&] { window_partition(x.to(DType::i32), 2); }, {"f32 or f64"}));
  EXPECT_TRUE(throws_with(
      [&] {
        window_merge(Tensor::zeros({3, 4, 2}), 2, 1, 4, 4);
      },
      {"window_merge: windows must be [4, 4, 2]"}));
  EXPECT_TRUE(throws_with(
      [&] {
        window_merge(Tensor::zeros({4, 4, 2}), 2, 1, -4, 4);
      },
      {"h and w must be at least 0"}));
}

}  // namespace
}  // namespace lectern
