#include "core/ops/elementwise.h"

#include "core/ops/activation_math.h"
#include "core/parallel.h"

#include <algorithm>

namespace lectern {
namespace {

constexpr std::int64_t kGrain = 1 << 14;

/// out[i] = f(x[i])
template <typename T, typename F>
void map(const Tensor& x, const Tensor& out, F f) {
  const T* in = x.data<T>();
  T* to = out.data<T>();
  parallel_for(x.numel(), kGrain, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) to[i] = f(in[i]);
  });
}

/// out[i] = f(a[i], b[i])
template <typename T, typename F>
void map(const Tensor& a, const Tensor& b, const Tensor& out, F f) {
  const T *x = a.data<T>(), *y = b.data<T>();
  T* to = out.data<T>();
  parallel_for(a.numel(), kGrain, [=](std::int64_t begin, std::int64_t end) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) to[i] = f(x[i], y[i]);
  });
}

void add_cpu(const Tensor& a, const Tensor& b, const Tensor& out) {
  dispatch_floating(a.dtype(), "add", [&]<typename T>() {
    const T *x = a.data<T>(), *y = b.data<T>();
    T* to = out.data<T>();
    const std::int64_t period = b.numel();
    parallel_for(a.numel(), kGrain, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t at = begin; at < end;) {
        const std::int64_t offset = at % period, length = std::min(period - offset, end - at);
#pragma omp simd
        for (std::int64_t i = 0; i < length; ++i) to[at + i] = x[at + i] + y[offset + i];
        at += length;
      }
    });
  });
}

void multiply_cpu(const Tensor& a, const Tensor& b, const Tensor& out) {
  dispatch_floating(a.dtype(), "multiply",
                    [&]<typename T>() { map<T>(a, b, out, [](T x, T y) { return x * y; }); });
}

void scale_cpu(const Tensor& x, double factor, const Tensor& out) {
  dispatch_floating(x.dtype(), "scale", [&]<typename T>() {
    map<T>(x, out, [f = static_cast<T>(factor)](T v) { return v * f; });
  });
}

void gelu_cpu(const Tensor& x, const Tensor& out) {
  dispatch_floating(x.dtype(), "gelu",
                    [&]<typename T>() { map<T>(x, out, [](T v) { return activation::gelu(v); }); });
}

void silu_cpu(const Tensor& x, const Tensor& out) {
  dispatch_floating(x.dtype(), "silu",
                    [&]<typename T>() { map<T>(x, out, [](T v) { return activation::silu(v); }); });
}

void gelu_backward_cpu(const Tensor& grad_output, const Tensor& x, const Tensor& grad_x) {
  dispatch_floating(x.dtype(), "gelu", [&]<typename T>() {
    map<T>(grad_output, x, grad_x, [](T g, T v) { return g * activation::gelu_derivative(v); });
  });
}

void silu_backward_cpu(const Tensor& grad_output, const Tensor& x, const Tensor& grad_x) {
  dispatch_floating(x.dtype(), "silu", [&]<typename T>() {
    map<T>(grad_output, x, grad_x, [](T g, T v) { return g * activation::silu_derivative(v); });
  });
}

void check_floating(const Tensor& x, std::string_view operation) {
  check_computable(x, operation, "x");
}

void check_alike(const Tensor& a, const Tensor& b, std::string_view operation,
                 std::string_view name) {
  check_floating(a, operation);
  check_shape(b, a.shape(), operation, name);
  check_dtype(b, a.dtype(), operation, name);
  check_device(b, a, operation, name);
}

}  // namespace

KernelTable<ElementwiseKernels>& elementwise_table() {
  static KernelTable<ElementwiseKernels> table(
      "elementwise",
      {add_cpu, multiply_cpu, scale_cpu, gelu_cpu, silu_cpu, gelu_backward_cpu, silu_backward_cpu});
  return table;
}

bool is_suffix(const Shape& small, const Shape& large) {
  int first = 0;
  while (first < small.ndim() && small[first] == 1) ++first;
  const int kept = small.ndim() - first;
  return kept <= large.ndim() && std::equal(small.begin() + first, small.end(), large.end() - kept);
}

Tensor add(const Tensor& a, const Tensor& b) {
  check_floating(a, "add");
  check_dtype(b, a.dtype(), "add", "b");
  check_device(b, a, "add", "b");
  if (!is_suffix(b.shape(), a.shape()))
    fail<ShapeError>(fmt::format("add: b must have the last dimensions of {}, got {}", a.describe(),
                                 b.describe()));
  const Tensor out = Tensor::empty_like(a);
  elementwise_table().at(a.device()).add(a.contiguous(), b.contiguous(), out);
  return out;
}

Tensor multiply(const Tensor& a, const Tensor& b) {
  check_alike(a, b, "multiply", "b");
  const Tensor out = Tensor::empty_like(a);
  elementwise_table().at(a.device()).multiply(a.contiguous(), b.contiguous(), out);
  return out;
}

Tensor scale(const Tensor& x, double factor) {
  check_floating(x, "scale");
  const Tensor out = Tensor::empty_like(x);
  elementwise_table().at(x.device()).scale(x.contiguous(), factor, out);
  return out;
}

Tensor gelu(const Tensor& x) {
  check_floating(x, "gelu");
  const Tensor out = Tensor::empty_like(x);
  elementwise_table().at(x.device()).gelu(x.contiguous(), out);
  return out;
}

Tensor silu(const Tensor& x) {
  check_floating(x, "silu");
  const Tensor out = Tensor::empty_like(x);
  elementwise_table().at(x.device()).silu(x.contiguous(), out);
  return out;
}

Tensor gelu_backward(const Tensor& grad_output, const Tensor& x) {
  check_alike(x, grad_output, "gelu", "grad_output");
  const Tensor out = Tensor::empty_like(x);
  elementwise_table().at(x.device()).gelu_backward(grad_output.contiguous(), x.contiguous(), out);
  return out;
}

Tensor silu_backward(const Tensor& grad_output, const Tensor& x) {
  check_alike(x, grad_output, "silu", "grad_output");
  const Tensor out = Tensor::empty_like(x);
  elementwise_table().at(x.device()).silu_backward(grad_output.contiguous(), x.contiguous(), out);
  return out;
}

}  // namespace lectern
