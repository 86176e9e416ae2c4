#include "core/ops/conv2d.h"

#include "core/cpu/gemm_bf16.h"
#include "core/ops/conv2d_onednn.h"
#include "core/ops/convert.h"
#include "core/ops/linear.h"
#include "core/parallel.h"
#include "core/profile.h"

#include <algorithm>

namespace lectern {
namespace {

struct Geometry {
  Geometry(const Shape& x, const Shape& weight, const Shape& y, const Conv2dArgs& args)
      : h(x[1]),
        w(x[2]),
        c(x[3]),
        kh(weight[2]),
        kw(weight[3]),
        out_h(y[1]),
        out_w(y[2]),
        o(y[3]),
        stride(args.stride),
        padding(args.padding) {}
  std::int64_t columns() const { return kh * kw * c; }
  std::int64_t pixels() const { return out_h * out_w; }

  std::int64_t h, w, c, kh, kw, out_h, out_w, o, stride, padding;
};

/// Calls f(column, pixel of x or null when it is padding) for the taps of output pixel (i, j).
template <typename T, typename F>
void for_taps(const Geometry& g, T* image, std::int64_t i, std::int64_t j, F&& f) {
  for (std::int64_t ky = 0; ky < g.kh; ++ky)
    for (std::int64_t kx = 0; kx < g.kw; ++kx) {
      const std::int64_t row = i * g.stride + ky - g.padding, at = j * g.stride + kx - g.padding;
      const bool inside = row >= 0 && row < g.h && at >= 0 && at < g.w;
      f((ky * g.kw + kx) * g.c, inside ? image + (row * g.w + at) * g.c : nullptr);
    }
}

/// columns[pixel, (ky, kx, c)] of one image.
template <typename T>
void gather_columns(const Geometry& g, const T* image, T* columns) {
  parallel_for(g.out_h, std::max<std::int64_t>(1, (1 << 14) / (g.out_w * g.columns())),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t i = begin; i < end; ++i)
                   for (std::int64_t j = 0; j < g.out_w; ++j) {
                     T* to = columns + (i * g.out_w + j) * g.columns();
                     for_taps(g, image, i, j, [&](std::int64_t column, const T* from) {
                       if (from == nullptr) {
                         std::fill_n(to + column, g.c, T{});
                       } else {
                         std::copy_n(from, g.c, to + column);
                       }
                     });
                   }
               });
}

template <typename T>
void scatter_columns(const Geometry& g, const T* columns, T* image) {
  std::fill_n(image, g.h * g.w * g.c, T{0});
  for (std::int64_t i = 0; i < g.out_h; ++i)
    for (std::int64_t j = 0; j < g.out_w; ++j) {
      const T* from = columns + (i * g.out_w + j) * g.columns();
      for_taps(g, image, i, j, [&](std::int64_t column, T* to) {
        for (std::int64_t k = 0; to != nullptr && k < g.c; ++k) to[k] += from[column + k];
      });
    }
}

/// [O, C, kh, kw] -> [O, kh, kw, C], the order of the columns.
Tensor channels_last(const Tensor& weight) { return weight.permute({0, 2, 3, 1}).contiguous(); }

/// oneDNN convolves bf16 only where there are instructions for it.
Tensor for_library(const Tensor& x) {
  return x.dtype() == DType::bf16 && bf16_arithmetic() == "f32" ? convert(x, DType::f32) : x;
}

void forward_cpu(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dArgs& args,
                 const Tensor& out) {
  if (x.dtype() != DType::f64)
    return conv2d_forward_onednn(for_library(x), for_library(weight), bias, args.stride,
                                 args.padding, out);
  const Geometry g(x.shape(), weight.shape(), out.shape(), args);
  const Tensor taps = channels_last(weight).view({g.o, g.columns()});
  const Tensor columns = Tensor::empty({g.pixels(), g.columns()}, x.dtype());
  for (std::int64_t n = 0; n < x.dim(0); ++n) {
    gather_columns(g, x.data<double>() + n * g.h * g.w * g.c, columns.data<double>());
    const Tensor y = linear(columns, taps, bias);
    out.slice(0, n, n + 1).view({g.pixels(), g.o}).copy_from(y);
  }
}

void grad_x_cpu(const Tensor& grad_y, const Tensor& weight, const Conv2dArgs& args,
                const Tensor& out) {
  if (grad_y.dtype() != DType::f64)
    return conv2d_grad_x_onednn(for_library(grad_y), for_library(weight), args.stride, args.padding,
                                out);
  const Geometry g(out.shape(), weight.shape(), grad_y.shape(), args);
  const Tensor taps = channels_last(weight).view({g.o, g.columns()});
  for (std::int64_t n = 0; n < out.dim(0); ++n) {
    const Tensor columns = linear_grad_x(grad_y.slice(0, n, n + 1).view({g.pixels(), g.o}), taps);
    scatter_columns(g, columns.data<double>(), out.data<double>() + n * g.h * g.w * g.c);
  }
}

/// All dtypes: oneDNN splits this sum over threads, so its result would depend on their number.
void grad_weight_cpu(const Tensor& grad_y, const Tensor& x, const Conv2dArgs& args,
                     const Tensor& out) {
  const Geometry g(x.shape(), out.shape(), grad_y.shape(), args);
  const Tensor sum = Tensor::zeros({g.o, g.kh, g.kw, g.c}, out.dtype());
  const Tensor columns = Tensor::empty({g.pixels(), g.columns()}, x.dtype());
  dispatch_operand(x.dtype(), "conv2d", [&]<typename T>() {
    for (std::int64_t n = 0; n < x.dim(0); ++n) {
      gather_columns(g, x.data<T>() + n * g.h * g.w * g.c, columns.data<T>());
      linear_accumulate_grad_weight(grad_y.slice(0, n, n + 1).view({g.pixels(), g.o}), columns,
                                    sum.view({g.o, g.columns()}));
    }
  });
  out.copy_from(sum.permute({0, 3, 1, 2}));
}

double work_of(const Tensor& y, const Shape& weight) {
  return 2.0 * static_cast<double>(y.numel()) *
         static_cast<double>(weight[1] * weight[2] * weight[3]);
}

bool is_pointwise(const Shape& weight, const Conv2dArgs& args) {
  return weight[2] == 1 && weight[3] == 1 && args.stride == 1 && args.padding == 0;
}

/// Shape of y; throws unless everything fits.
Shape output_shape(const Shape& x, const Shape& weight, const Conv2dArgs& args) {
  if (args.stride < 1 || args.padding < 0)
    fail<ShapeError>(fmt::format("conv2d: stride must be >= 1 and padding >= 0, got {} and {}",
                                 args.stride, args.padding));
  if (x.ndim() != 4) fail<ShapeError>(fmt::format("conv2d: x must be [N, H, W, C], got {}", x));
  if (weight.ndim() != 4 || weight[1] != x[3])
    fail<ShapeError>(fmt::format("conv2d: weight must be [O, C={}, kh, kw], got {}", x[3], weight));
  const std::int64_t h = x[1] + 2 * args.padding, w = x[2] + 2 * args.padding;
  if (weight[0] < 1 || weight[1] < 1 || weight[2] < 1 || weight[3] < 1 || weight[2] > h ||
      weight[3] > w)
    fail<ShapeError>(fmt::format(
        "conv2d: weight must have channels and a kernel within the padded {} x {} image, got {}", h,
        w, weight));
  return {x[0], (h - weight[2]) / args.stride + 1, (w - weight[3]) / args.stride + 1, weight[0]};
}

}  // namespace

KernelTable<Conv2dKernels>& conv2d_table() {
  static KernelTable<Conv2dKernels> instance("conv2d", {forward_cpu, grad_x_cpu, grad_weight_cpu});
  return instance;
}

Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dArgs& args) {
  check_ndim(x, 4, "conv2d", "x");
  check_ndim(weight, 4, "conv2d", "weight");
  const Shape shape = output_shape(x.shape(), weight.shape(), args);
  check_dtype(weight, x.dtype(), "conv2d", "weight");
  check_device(weight, x, "conv2d", "weight");
  if (bias.defined()) {
    check_shape(bias, {shape[3]}, "conv2d", "bias");
    check_dtype(bias, sum_dtype(x.dtype()), "conv2d", "bias");
  }
  if (is_pointwise(weight.shape(), args))
    return linear(x, weight.contiguous().view({shape[3], x.dim(3)}), bias);
  Tensor y = Tensor::empty(shape, sum_dtype(x.dtype()), x.device());
  if (y.numel() == 0) return y;
  const ProfileProduct timed("conv2d forward", work_of(y, weight.shape()));
  conv2d_table()
      .at(x.device())
      .forward(x.contiguous(), weight.contiguous(), bias.defined() ? bias.contiguous() : bias, args,
               y);
  return y;
}

Tensor conv2d_grad_x(const Tensor& grad_y, const Tensor& weight, const Shape& x_shape,
                     const Conv2dArgs& args) {
  check_ndim(weight, 4, "conv2d", "weight");
  check_shape(grad_y, output_shape(x_shape, weight.shape(), args), "conv2d", "grad_y");
  check_dtype(grad_y, weight.dtype(), "conv2d", "grad_y");
  check_device(grad_y, weight, "conv2d", "grad_y");
  if (is_pointwise(weight.shape(), args))
    return linear_grad_x(grad_y, weight.contiguous().view({weight.dim(0), weight.dim(1)}));
  Tensor out = Tensor::empty(x_shape, sum_dtype(grad_y.dtype()), grad_y.device());
  if (out.numel() == 0) return out;
  const ProfileProduct timed("conv2d grad_x", work_of(grad_y, weight.shape()));
  conv2d_table().at(grad_y.device()).grad_x(grad_y.contiguous(), weight.contiguous(), args, out);
  return out;
}

Tensor conv2d_grad_weight(const Tensor& grad_y, const Tensor& x, const Shape& weight_shape,
                          const Conv2dArgs& args) {
  check_ndim(x, 4, "conv2d", "x");
  check_shape(grad_y, output_shape(x.shape(), weight_shape, args), "conv2d", "grad_y");
  check_dtype(grad_y, x.dtype(), "conv2d", "grad_y");
  check_device(grad_y, x, "conv2d", "grad_y");
  if (is_pointwise(weight_shape, args)) return linear_grad_weight(grad_y, x).view(weight_shape);
  if (x.numel() == 0) return Tensor::zeros(weight_shape, sum_dtype(x.dtype()), x.device());
  Tensor out = Tensor::empty(weight_shape, sum_dtype(x.dtype()), x.device());
  conv2d_table().at(x.device()).grad_weight(grad_y.contiguous(), x.contiguous(), args, out);
  return out;
}

}  // namespace lectern
