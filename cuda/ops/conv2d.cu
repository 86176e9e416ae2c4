// A convolution is a matrix product with the patches that its window sees (unfold), its gradients
// two more. That costs memory traffic and no library: all convolutions are half a percent of a
// model's work, every sum has one order, and f32 stays f32.
#include "core/ops/conv2d.h"
#include "cuda/launch.h"
#include "cuda/matrix_product.h"
#include "cuda/ops/conv2d.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

#include <algorithm>

namespace lectern::cuda {
namespace {

constexpr unsigned kThreads = 256;

/// x [images, height, width, channels], y [images, rows, columns, O], window kernel_h x kernel_w.
struct Geometry {
  std::int64_t images, height, width, channels, rows, columns, kernel_h, kernel_w;
  std::int64_t stride, padding;

  std::int64_t window() const { return kernel_h * kernel_w * channels; }
  std::int64_t places() const { return rows * columns; }
};

/// patches[n, i, j, ky, kx, c] = x[n, i s + ky - p, j s + kx - p, c], zero outside; a pack of c a
/// thread.
template <typename T, int N>
__global__ void unfold_kernel(Span<const T> x, Span<T> patches, Geometry g, std::int64_t count) {
  for (std::int64_t i = grid_thread(); i < count / N; i += grid_threads()) {
    std::int64_t rest = i * N;
    const std::int64_t c = rest % g.channels;
    rest /= g.channels;
    const std::int64_t kx = rest % g.kernel_w;
    rest /= g.kernel_w;
    const std::int64_t ky = rest % g.kernel_h;
    rest /= g.kernel_h;
    const std::int64_t column = rest % g.columns;
    rest /= g.columns;
    const std::int64_t row = rest % g.rows, n = rest / g.rows;
    const std::int64_t from_y = row * g.stride + ky - g.padding;
    const std::int64_t from_x = column * g.stride + kx - g.padding;
    Pack<T, N> pack;
    if (from_y >= 0 && from_y < g.height && from_x >= 0 && from_x < g.width)
      pack = x.template load<N>(((n * g.height + from_y) * g.width + from_x) * g.channels + c);
    else
      for (int k = 0; k < N; ++k) pack[k] = from_float<T>(0.0f);
    patches.template store<N>(i * N, pack);
  }
}

/// The transpose of unfold: each number of x gathers, window row after window row, what the patches
/// that saw it have for it.
template <int N>
__global__ void fold_kernel(Span<const float> patches, Span<float> x, Geometry g,
                            std::int64_t count) {
  for (std::int64_t i = grid_thread(); i < count / N; i += grid_threads()) {
    std::int64_t rest = i * N;
    const std::int64_t c = rest % g.channels;
    rest /= g.channels;
    const std::int64_t to_x = rest % g.width;
    rest /= g.width;
    const std::int64_t to_y = rest % g.height, n = rest / g.height;
    Pack<float, N> sum;
    for (int k = 0; k < N; ++k) sum[k] = 0.0f;
    for (std::int64_t ky = 0; ky < g.kernel_h; ++ky) {
      const std::int64_t y = to_y + g.padding - ky, row = y / g.stride;
      if (y < 0 || y % g.stride != 0 || row >= g.rows) continue;
      for (std::int64_t kx = 0; kx < g.kernel_w; ++kx) {
        const std::int64_t at = to_x + g.padding - kx, column = at / g.stride;
        if (at < 0 || at % g.stride != 0 || column >= g.columns) continue;
        const std::int64_t place = (n * g.rows + row) * g.columns + column;
        const auto term = patches.template load<N>(
            ((place * g.kernel_h + ky) * g.kernel_w + kx) * g.channels + c);
        for (int k = 0; k < N; ++k) sum[k] += term[k];
      }
    }
    x.template store<N>(i * N, sum);
  }
}

/// x, weight and y by their shapes: [N, H, W, C], [O, C, kh, kw], [N, H', W', O].
Geometry geometry_of(const Shape& x, const Shape& weight, const Shape& y, const Conv2dArgs& args) {
  return {x[0], x[1], x[2], x[3], y[1], y[2], weight[2], weight[3], args.stride, args.padding};
}

/// [rows of y of these images, kh kw C]
Tensor unfold(const Tensor& x, Geometry g) {
  g.images = x.dim(0);
  const bool is_itself = g.kernel_h == 1 && g.kernel_w == 1 && g.stride == 1 && g.padding == 0;
  if (is_itself) return x.view({-1, g.channels});
  const Tensor patches = Tensor::empty({g.images * g.places(), g.window()}, x.dtype(), x.device());
  dispatch_storage(x.dtype(), "conv2d", [&]<typename T>() {
    dispatch_width<T>(g.channels, {&x, &patches}, [&]<int N>() {
      launch("conv2d_unfold", {grid_for(patches.numel() / N, kThreads), kThreads},
             unfold_kernel<T, N>, span<const T>(x), span<T>(patches), g, patches.numel());
    });
  });
  return patches;
}

void fold(const Tensor& patches, Geometry g, const Tensor& x) {
  g.images = x.dim(0);
  dispatch_width<float>(g.channels, {&x, &patches}, [&]<int N>() {
    launch("conv2d_fold", {grid_for(x.numel() / N, kThreads), kThreads}, fold_kernel<N>,
           span<const float>(patches), span<float>(x), g, x.numel());
  });
}

/// Calls f(first image, end) for as many images at a time as their patches may take.
template <typename F>
void for_images(const Geometry& g, DType dtype, F&& f) {
  const auto bytes = static_cast<std::size_t>(g.places() * g.window()) * size_of(dtype);
  const auto at_once =
      std::max<std::int64_t>(1, static_cast<std::int64_t>(most_patch_bytes / bytes));
  for (std::int64_t begin = 0; begin < g.images; begin += at_once)
    f(begin, std::min(g.images, begin + at_once));
}

/// [O, C, kh, kw] -> [O, kh, kw, C]
Tensor channels_last(const Tensor& weight) { return weight.permute({0, 2, 3, 1}).contiguous(); }

void forward(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dArgs& args,
             const Tensor& out) {
  const Range range("conv2d");
  const Geometry g = geometry_of(x.shape(), weight.shape(), out.shape(), args);
  const Tensor filter = channels_last(weight);
  for_images(g, x.dtype(), [&](std::int64_t begin, std::int64_t end) {
    const Tensor patches = unfold(x.slice(0, begin, end), g);
    matrix_product({.transpose_b = true,
                    .m = patches.dim(0),
                    .n = weight.dim(0),
                    .k = g.window(),
                    .lda = g.window(),
                    .ldb = g.window(),
                    .ldc = weight.dim(0),
                    .bias = bias},
                   patches, filter, out.slice(0, begin, end));
  });
}

void grad_x(const Tensor& grad_y, const Tensor& weight, const Conv2dArgs& args, const Tensor& out) {
  const Range range("conv2d_grad_x");
  const Geometry g = geometry_of(out.shape(), weight.shape(), grad_y.shape(), args);
  const Tensor filter = channels_last(weight);
  for_images(g, DType::f32, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t rows = (end - begin) * g.places();
    const Tensor patches = Tensor::empty({rows, g.window()}, DType::f32, out.device());
    matrix_product({.m = rows,
                    .n = g.window(),
                    .k = weight.dim(0),
                    .lda = weight.dim(0),
                    .ldb = g.window(),
                    .ldc = g.window()},
                   grad_y.slice(0, begin, end), filter, patches);
    fold(patches, g, out.slice(0, begin, end));
  });
}

void grad_weight(const Tensor& grad_y, const Tensor& x, const Conv2dArgs& args, const Tensor& out) {
  const Range range("conv2d_grad_weight");
  const Geometry g = geometry_of(x.shape(), out.shape(), grad_y.shape(), args);
  const std::int64_t filters = out.dim(0);
  const Tensor grad =
      Tensor::empty({filters, g.kernel_h, g.kernel_w, g.channels}, DType::f32, out.device());
  for_images(g, x.dtype(), [&](std::int64_t begin, std::int64_t end) {
    const Tensor patches = unfold(x.slice(0, begin, end), g);
    matrix_product({.transpose_a = true,
                    .m = filters,
                    .n = g.window(),
                    .k = patches.dim(0),
                    .lda = filters,
                    .ldb = g.window(),
                    .ldc = g.window(),
                    .accumulate = begin > 0},
                   grad_y.slice(0, begin, end), patches, grad);
  });
  out.copy_from(grad.permute({0, 3, 1, 2}));
}

}  // namespace

void register_conv2d() { conv2d_table().set(DeviceType::cuda, {forward, grad_x, grad_weight}); }

}  // namespace lectern::cuda
