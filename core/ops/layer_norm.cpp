#include "core/ops/layer_norm.h"

#include "core/cpu/row_chunks.h"
#include "core/ops/layer_norm_math.h"
#include "core/parallel.h"

#include <algorithm>

namespace lectern {
namespace {

template <typename T>
void forward_row(const T* x, const T* weight, const T* bias, std::int64_t columns, T epsilon, T* y,
                 T* mean_out, T* inverse_out) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t c = 0; c < columns; ++c) sum += x[c];
  const T rough = sum / static_cast<T>(columns);
  T rest = 0, squares = 0;
#pragma omp simd reduction(+ : rest, squares)
  for (std::int64_t c = 0; c < columns; ++c) {
    const T difference = x[c] - rough;
    rest += difference;
    squares += difference * difference;
  }
  const auto s =
      layer_norm_math::statistics(rough, rest, squares, static_cast<T>(columns), epsilon);
  const T mean = s.mean, inverse = s.inverse;
  *mean_out = mean;
  *inverse_out = inverse;
#pragma omp simd
  for (std::int64_t c = 0; c < columns; ++c)
    y[c] = layer_norm_math::output(x[c], mean, inverse, weight[c], bias[c]);
}

template <typename T>
void backward_row_x(const T* g, const T* x, const T* weight, std::int64_t columns, T mean,
                    T inverse, T* grad_x) {
  T sum = 0, dot = 0;
#pragma omp simd reduction(+ : sum, dot)
  for (std::int64_t c = 0; c < columns; ++c) {
    const T h = g[c] * weight[c];
    sum += h;
    dot += h * (x[c] - mean) * inverse;
  }
  const T mean_h = sum / static_cast<T>(columns), mean_hn = dot / static_cast<T>(columns);
#pragma omp simd
  for (std::int64_t c = 0; c < columns; ++c)
    grad_x[c] = layer_norm_math::grad_x(g[c], x[c], weight[c], mean, inverse, mean_h, mean_hn);
}

template <typename T>
void backward_row_affine(const T* g, const T* x, std::int64_t columns, T mean, T inverse,
                         T* grad_weight, T* grad_bias) {
#pragma omp simd
  for (std::int64_t c = 0; c < columns; ++c) {
    grad_weight[c] += g[c] * (x[c] - mean) * inverse;
    grad_bias[c] += g[c];
  }
}

void forward_cpu(const Tensor& x, const Tensor& weight, const Tensor& bias, double epsilon,
                 const LayerNormOutput& result) {
  dispatch_floating(x.dtype(), "layer_norm", [&]<typename T>() {
    const std::int64_t columns = weight.numel(), rows = result.mean.numel();
    const T *in = x.data<T>(), *w = weight.data<T>(), *b = bias.data<T>();
    T *out = result.output.data<T>(), *mean = result.mean.data<T>(),
      *inverse = result.inverse_deviation.data<T>();
    const std::int64_t grain = 1 + (1 << 14) / std::max<std::int64_t>(columns, 1);
    parallel_for(rows, grain, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row)
        forward_row(in + row * columns, w, b, columns, static_cast<T>(epsilon), out + row * columns,
                    mean + row, inverse + row);
    });
  });
}

void backward_cpu(const Tensor& grad_output, const LayerNormSaved& saved,
                  const LayerNormGradients& gradients) {
  dispatch_floating(saved.x.dtype(), "layer_norm", [&]<typename T>() {
    const std::int64_t columns = saved.weight.numel();
    const RowChunks chunks(saved.mean.numel());
    const T *g = grad_output.data<T>(), *x = saved.x.data<T>(), *w = saved.weight.data<T>(),
            *mean = saved.mean.data<T>(), *inverse = saved.inverse_deviation.data<T>();
    T* grad_x = gradients.x.defined() ? gradients.x.data<T>() : nullptr;
    Tensor weight_sums, bias_sums;
    T *weight_partial = nullptr, *bias_partial = nullptr;
    if (gradients.weight.defined()) {
      weight_sums = Tensor::zeros({chunks.count, columns}, saved.x.dtype());
      bias_sums = Tensor::zeros({chunks.count, columns}, saved.x.dtype());
      weight_partial = weight_sums.data<T>();
      bias_partial = bias_sums.data<T>();
    }
    parallel_for(chunks.count, 1, [=](std::int64_t first, std::int64_t last) {
      for (std::int64_t chunk = first; chunk < last; ++chunk)
        for (std::int64_t row = chunks.begin(chunk); row < chunks.end(chunk); ++row) {
          const std::int64_t at = row * columns;
          if (weight_partial != nullptr)
            backward_row_affine(g + at, x + at, columns, mean[row], inverse[row],
                                weight_partial + chunk * columns, bias_partial + chunk * columns);
          if (grad_x != nullptr)
            backward_row_x(g + at, x + at, w, columns, mean[row], inverse[row], grad_x + at);
        }
    });
    if (!gradients.weight.defined()) return;
    sum_rows_in_order(weight_partial, chunks.count, columns, gradients.weight.data<T>());
    sum_rows_in_order(bias_partial, chunks.count, columns, gradients.bias.data<T>());
  });
}

void check_inputs(const Tensor& x, const Tensor& weight) {
  if (x.ndim() == 0)
    fail<ShapeError>(
        fmt::format("layer_norm: x must have 1 or more dimensions, got {}", x.describe()));
  check_shape(weight, Shape{x.dim(-1)}, "layer_norm", "weight");
  check_computable(x, "layer_norm", "dtype");
  check_dtype(weight, accumulation_dtype(x.dtype()), "layer_norm", "weight");
  check_device(weight, x, "layer_norm", "weight");
}

std::int64_t row_count(const Tensor& x) { return x.numel() / std::max<std::int64_t>(x.dim(-1), 1); }

}  // namespace

KernelTable<LayerNormKernels>& layer_norm_table() {
  static KernelTable<LayerNormKernels> table("layer_norm", {forward_cpu, backward_cpu});
  return table;
}

LayerNormOutput layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                           double epsilon) {
  check_inputs(x, weight);
  check_shape(bias, weight.shape(), "layer_norm", "bias");
  check_dtype(bias, accumulation_dtype(x.dtype()), "layer_norm", "bias");
  check_device(bias, x, "layer_norm", "bias");
  if (!(epsilon > 0))
    fail<ConfigError>(fmt::format("layer_norm: epsilon must be positive, got {}", epsilon));
  const Shape rows{row_count(x)};
  const DType statistics = accumulation_dtype(x.dtype());
  const LayerNormOutput result{Tensor::empty_like(x), Tensor::empty(rows, statistics, x.device()),
                               Tensor::empty(rows, statistics, x.device())};
  layer_norm_table()
      .at(x.device())
      .forward(x.contiguous(), weight.contiguous(), bias.contiguous(), epsilon, result);
  return result;
}

LayerNormGradients layer_norm_backward(const Tensor& grad_output, const LayerNormSaved& saved,
                                       bool need_x, bool need_affine) {
  const Tensor& x = saved.x;
  check_inputs(x, saved.weight);
  check_shape(grad_output, x.shape(), "layer_norm", "grad_output");
  check_dtype(grad_output, x.dtype(), "layer_norm", "grad_output");
  check_device(grad_output, x, "layer_norm", "grad_output");
  const Shape rows{row_count(x)};
  check_shape(saved.mean, rows, "layer_norm", "mean");
  check_shape(saved.inverse_deviation, rows, "layer_norm", "inverse_deviation");
  LayerNormGradients gradients;
  if (need_x) gradients.x = Tensor::empty_like(x);
  if (need_affine) {
    gradients.weight = Tensor::empty_like(saved.weight);
    gradients.bias = Tensor::empty_like(saved.weight);
  }
  const LayerNormSaved dense{x.contiguous(), saved.weight.contiguous(), saved.mean.contiguous(),
                             saved.inverse_deviation.contiguous()};
  layer_norm_table().at(x.device()).backward(grad_output.contiguous(), dense, gradients);
  return gradients;
}

}  // namespace lectern
