// Convolutions against their CPU twins: windows, strides, edges, several images at a time.
#include "core/ops/conv2d.h"

#include "cuda/ops/conv2d.h"
#include "tests/cuda/check_cuda.h"

namespace lectern {
namespace {

using testing::Both;
using testing::kStorageTypes;
using testing::matches;
using testing::random_both;

struct Convolution {
  std::int64_t images, height, width, channels, filters, kernel_h, kernel_w;
  Conv2dArgs args;
};

void check_convolution(const Convolution& c, DType dtype) {
  SCOPED_TRACE(fmt::format("{} x [{}, {}, {}], window {} x {}, stride {}, padding {}, {}", c.images,
                           c.height, c.width, c.channels, c.kernel_h, c.kernel_w, c.args.stride,
                           c.args.padding, name_of(dtype)));
  const Both x = random_both({c.images, c.height, c.width, c.channels}, 1, dtype);
  const Both weight = random_both({c.filters, c.channels, c.kernel_h, c.kernel_w}, 2, dtype);
  const Both bias = random_both({c.filters}, 3);
  const Tensor want = conv2d(x.cpu, weight.cpu, bias.cpu, c.args);
  const std::int64_t window = c.channels * c.kernel_h * c.kernel_w;
  EXPECT_TRUE(matches(conv2d(x.cuda, weight.cuda, bias.cuda, c.args), want, DType::f32, window));
  EXPECT_TRUE(matches(conv2d(x.cuda, weight.cuda, {}, c.args),
                      conv2d(x.cpu, weight.cpu, {}, c.args), DType::f32, window));
  const Both grad = random_both(want.shape(), 4, dtype);
  EXPECT_TRUE(matches(conv2d_grad_x(grad.cuda, weight.cuda, x.cpu.shape(), c.args),
                      conv2d_grad_x(grad.cpu, weight.cpu, x.cpu.shape(), c.args), DType::f32,
                      c.filters * c.kernel_h * c.kernel_w));
  EXPECT_TRUE(matches(conv2d_grad_weight(grad.cuda, x.cuda, weight.cpu.shape(), c.args),
                      conv2d_grad_weight(grad.cpu, x.cpu, weight.cpu.shape(), c.args), DType::f32,
                      want.numel() / c.filters));
}

TEST(CudaConvolution, MatchesTheCpu) {
  for (const DType dtype : kStorageTypes) {
    check_convolution({2, 6, 5, 8, 7, 3, 3, {.stride = 1, .padding = 1}}, dtype);   // SAM's neck
    check_convolution({3, 8, 8, 16, 4, 3, 3, {.stride = 2, .padding = 1}}, dtype);  // downsampling
    check_convolution({1, 8, 8, 3, 5, 4, 4, {.stride = 4, .padding = 0}}, dtype);   // patches
    check_convolution({2, 4, 3, 8, 6, 1, 1, {.stride = 1, .padding = 0}}, dtype);
    check_convolution({2, 5, 7, 3, 2, 2, 3, {.stride = 2, .padding = 2}}, dtype);
    check_convolution({1, 7, 7, 2, 3, 2, 2, {.stride = 3, .padding = 0}}, dtype);  // unseen edges
    check_convolution({1, 1, 1, 1, 1, 1, 1, {.stride = 1, .padding = 0}}, dtype);
  }
}

TEST(CudaConvolution, ManyImagesGoThroughInParts) {
  const std::size_t most = std::exchange(cuda::most_patch_bytes, 4000);
  for (const DType dtype : kStorageTypes)
    check_convolution({5, 6, 5, 4, 7, 3, 3, {.stride = 1, .padding = 1}}, dtype);
  cuda::most_patch_bytes = most;
}

}  // namespace
}  // namespace lectern
