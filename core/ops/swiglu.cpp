#include "core/ops/swiglu.h"

#include "core/ops/swiglu_math.h"
#include "core/parallel.h"

#include <algorithm>

namespace lectern {
namespace {

std::int64_t row_grain(std::int64_t columns) {
  return 1 + (1 << 13) / std::max<std::int64_t>(columns, 1);
}

void forward_cpu(const Tensor& gate_up, const Tensor& out) {
  dispatch_floating(gate_up.dtype(), "swiglu", [&]<typename T>() {
    const std::int64_t n = out.dim(-1), rows = out.numel() / std::max<std::int64_t>(n, 1);
    const T* in = gate_up.data<T>();
    T* to = out.data<T>();
    parallel_for(rows, row_grain(n), [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const T *gate = in + row * 2 * n, *up = gate + n;
        T* y = to + row * n;
#pragma omp simd
        for (std::int64_t i = 0; i < n; ++i) y[i] = swiglu_math::output(gate[i], up[i]);
      }
    });
  });
}

void backward_cpu(const Tensor& grad_output, const Tensor& gate_up, const Tensor& grad_gate_up) {
  dispatch_floating(gate_up.dtype(), "swiglu", [&]<typename T>() {
    const std::int64_t n = grad_output.dim(-1),
                       rows = grad_output.numel() / std::max<std::int64_t>(n, 1);
    const T *in = gate_up.data<T>(), *grads = grad_output.data<T>();
    T* to = grad_gate_up.data<T>();
    parallel_for(rows, row_grain(n), [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const T *gate = in + row * 2 * n, *up = gate + n, *g = grads + row * n;
        T *grad_gate = to + row * 2 * n, *grad_up = grad_gate + n;
#pragma omp simd
        for (std::int64_t i = 0; i < n; ++i) {
          const auto grads = swiglu_math::gradients(g[i], gate[i], up[i]);
          grad_gate[i] = grads.gate;
          grad_up[i] = grads.up;
        }
      }
    });
  });
}

Shape output_shape(const Tensor& gate_up) {
  if (gate_up.ndim() == 0 || gate_up.dim(-1) % 2 != 0)
    fail<ShapeError>(fmt::format("swiglu: gate_up must have an even last dimension, got {}",
                                 gate_up.describe()));
  Shape shape = gate_up.shape();
  shape[shape.ndim() - 1] /= 2;
  return shape;
}

}  // namespace

KernelTable<SwigluKernels>& swiglu_table() {
  static KernelTable<SwigluKernels> table("swiglu", {forward_cpu, backward_cpu});
  return table;
}

Tensor swiglu(const Tensor& gate_up) {
  const Tensor out = Tensor::empty(output_shape(gate_up), gate_up.dtype(), gate_up.device());
  swiglu_table().at(gate_up.device()).forward(gate_up.contiguous(), out);
  return out;
}

Tensor swiglu_backward(const Tensor& grad_output, const Tensor& gate_up) {
  check_shape(grad_output, output_shape(gate_up), "swiglu", "grad_output");
  check_dtype(grad_output, gate_up.dtype(), "swiglu", "grad_output");
  check_device(grad_output, gate_up, "swiglu", "grad_output");
  const Tensor grad = Tensor::empty_like(gate_up);
  swiglu_table()
      .at(gate_up.device())
      .backward(grad_output.contiguous(), gate_up.contiguous(), grad);
  return grad;
}

}  // namespace lectern
