#include "core/ops/rms_norm.h"

#include "core/cpu/row_chunks.h"
#include "core/ops/rms_norm_math.h"
#include "core/parallel.h"

#include <algorithm>

namespace lectern {
namespace {

template <typename T>
void forward_row(const T* x, const T* weight, std::int64_t columns, T epsilon, T* y,
                 T* inverse_rms) {
  T squares = 0;
#pragma omp simd reduction(+ : squares)
  for (std::int64_t c = 0; c < columns; ++c) squares += x[c] * x[c];
  const T r = rms_norm_math::inverse_rms(squares, static_cast<T>(columns), epsilon);
  *inverse_rms = r;
#pragma omp simd
  for (std::int64_t c = 0; c < columns; ++c) y[c] = rms_norm_math::output(x[c], r, weight[c]);
}

/// grad_x or grad_weight may be null; grad_weight is added to.
template <typename T>
void backward_row(const T* g, const T* x, const T* weight, std::int64_t columns, T r, T* grad_x,
                  T* grad_weight) {
  if (grad_weight != nullptr) {
#pragma omp simd
    for (std::int64_t c = 0; c < columns; ++c) grad_weight[c] += g[c] * x[c] * r;
  }
  if (grad_x == nullptr) return;
  T dot = 0;
#pragma omp simd reduction(+ : dot)
  for (std::int64_t c = 0; c < columns; ++c) dot += g[c] * weight[c] * x[c];
  const T pull = rms_norm_math::pull(dot, r, static_cast<T>(columns));
#pragma omp simd
  for (std::int64_t c = 0; c < columns; ++c)
    grad_x[c] = rms_norm_math::grad_x(g[c], x[c], weight[c], r, pull);
}

void forward_cpu(const Tensor& x, const Tensor& weight, double epsilon,
                 const RmsNormOutput& result) {
  dispatch_floating(x.dtype(), "rms_norm", [&]<typename T>() {
    const std::int64_t columns = weight.numel(), rows = result.inverse_rms.numel();
    const T *in = x.data<T>(), *w = weight.data<T>();
    T *out = result.output.data<T>(), *inverse = result.inverse_rms.data<T>();
    const std::int64_t grain = 1 + (1 << 14) / std::max<std::int64_t>(columns, 1);
    parallel_for(rows, grain, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row)
        forward_row(in + row * columns, w, columns, static_cast<T>(epsilon), out + row * columns,
                    inverse + row);
    });
  });
}

void backward_cpu(const Tensor& grad_output, const Tensor& x, const Tensor& weight,
                  const Tensor& inverse_rms, const RmsNormGradients& gradients) {
  dispatch_floating(x.dtype(), "rms_norm", [&]<typename T>() {
    const std::int64_t columns = weight.numel();
    const RowChunks chunks(inverse_rms.numel());
    const T *g = grad_output.data<T>(), *in = x.data<T>(), *w = weight.data<T>(),
            *inverse = inverse_rms.data<T>();
    T* grad_x = gradients.x.defined() ? gradients.x.data<T>() : nullptr;
    Tensor partial;
    if (gradients.weight.defined())
      partial = Tensor::zeros({chunks.count, columns}, x.dtype(), x.device());
    T* sums = partial.defined() ? partial.data<T>() : nullptr;
    parallel_for(chunks.count, 1, [=](std::int64_t first, std::int64_t last) {
      for (std::int64_t chunk = first; chunk < last; ++chunk)
        for (std::int64_t row = chunks.begin(chunk); row < chunks.end(chunk); ++row)
          backward_row(g + row * columns, in + row * columns, w, columns, inverse[row],
                       grad_x == nullptr ? nullptr : grad_x + row * columns,
                       sums == nullptr ? nullptr : sums + chunk * columns);
    });
    if (gradients.weight.defined())
      sum_rows_in_order(sums, chunks.count, columns, gradients.weight.data<T>());
  });
}

void check_inputs(const Tensor& x, const Tensor& weight) {
  if (x.ndim() == 0)
    fail<ShapeError>(
        fmt::format("rms_norm: x must have 1 or more dimensions, got {}", x.describe()));
  check_shape(weight, Shape{x.dim(-1)}, "rms_norm", "weight");
  check_computable(x, "rms_norm", "dtype");
  check_dtype(weight, accumulation_dtype(x.dtype()), "rms_norm", "weight");
  check_device(weight, x, "rms_norm", "weight");
}

}  // namespace

KernelTable<RmsNormKernels>& rms_norm_table() {
  static KernelTable<RmsNormKernels> table("rms_norm", {forward_cpu, backward_cpu});
  return table;
}

RmsNormOutput rms_norm(const Tensor& x, const Tensor& weight, double epsilon) {
  check_inputs(x, weight);
  if (!(epsilon > 0))
    fail<ConfigError>(fmt::format("rms_norm: epsilon must be positive, got {}", epsilon));
  const std::int64_t rows = x.numel() / std::max<std::int64_t>(x.dim(-1), 1);
  const RmsNormOutput result{Tensor::empty_like(x),
                             Tensor::empty({rows}, accumulation_dtype(x.dtype()), x.device())};
  rms_norm_table().at(x.device()).forward(x.contiguous(), weight.contiguous(), epsilon, result);
  return result;
}

RmsNormGradients rms_norm_backward(const Tensor& grad_output, const Tensor& x, const Tensor& weight,
                                   const Tensor& inverse_rms, bool need_x, bool need_weight) {
  check_inputs(x, weight);
  check_shape(grad_output, x.shape(), "rms_norm", "grad_output");
  check_dtype(grad_output, x.dtype(), "rms_norm", "grad_output");
  const std::int64_t rows = x.numel() / std::max<std::int64_t>(x.dim(-1), 1);
  check_shape(inverse_rms, Shape{rows}, "rms_norm", "inverse_rms");
  check_dtype(inverse_rms, accumulation_dtype(x.dtype()), "rms_norm", "inverse_rms");
  check_device(grad_output, x, "rms_norm", "grad_output");
  check_device(inverse_rms, x, "rms_norm", "inverse_rms");
  RmsNormGradients gradients;
  if (need_x) gradients.x = Tensor::empty_like(x);
  if (need_weight) gradients.weight = Tensor::empty_like(weight);
  rms_norm_table()
      .at(x.device())
      .backward(grad_output.contiguous(), x.contiguous(), weight.contiguous(),
                inverse_rms.contiguous(), gradients);
  return gradients;
}

}  // namespace lectern
