#include "core/ops/stream_stack.h"

#include "core/parallel.h"

#include <algorithm>

namespace lectern {
namespace {

/// Calls f(token) for all tokens, in parallel.
template <typename F>
void for_each_token(std::int64_t tokens, std::int64_t numbers, F&& f) {
  parallel_for(tokens, 1 + (1 << 14) / std::max<std::int64_t>(1, numbers),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t t = begin; t < end; ++t) f(t);
               });
}

void expand_cpu(const Tensor& x, double factor, const Tensor& output) {
  dispatch_floating(x.dtype(), "stream_expand", [&]<typename T>() {
    const std::int64_t width = x.dim(-1), n = output.dim(-2);
    const T* in = x.data<T>();
    T* out = output.data<T>();
    const T f = static_cast<T>(factor);
    if (output.numel() == 0) return;
    for_each_token(x.numel() / width, n * width, [=](std::int64_t t) {
      for (std::int64_t i = 0; i < n; ++i) {
        T* to = out + (t * n + i) * width;
#pragma omp simd
        for (std::int64_t c = 0; c < width; ++c) to[c] = f * in[t * width + c];
      }
    });
  });
}

void sum_cpu(const Tensor& x, double factor, const Tensor& output) {
  dispatch_floating(x.dtype(), "stream_sum", [&]<typename T>() {
    const std::int64_t width = x.dim(-1), n = x.dim(-2);
    const T* in = x.data<T>();
    T* out = output.data<T>();
    const T f = static_cast<T>(factor);
    if (output.numel() == 0 || n == 0) return output.fill(0);
    for_each_token(output.numel() / width, n * width, [=](std::int64_t t) {
      const T* from = in + t * n * width;
      T* to = out + t * width;
#pragma omp simd
      for (std::int64_t c = 0; c < width; ++c) to[c] = f * from[c];
      for (std::int64_t i = 1; i < n; ++i) {
#pragma omp simd
        for (std::int64_t c = 0; c < width; ++c) to[c] += f * from[i * width + c];
      }
    });
  });
}

}  // namespace

KernelTable<StreamStackKernels>& stream_stack_table() {
  static KernelTable<StreamStackKernels> table("stream_stack", {expand_cpu, sum_cpu});
  return table;
}

Tensor stream_expand(const Tensor& x, std::int64_t streams, double factor) {
  if (x.ndim() < 1)
    fail<ShapeError>(
        fmt::format("stream_expand: x must have 1 or more dimensions, got {}", x.describe()));
  if (streams < 1)
    fail<ShapeError>(fmt::format("stream_expand: streams must be at least 1, got {}", streams));
  Shape shape;
  for (int i = 0; i + 1 < x.ndim(); ++i) shape.push_back(x.dim(i));
  shape.push_back(streams);
  shape.push_back(x.dim(-1));
  const Tensor output = Tensor::empty(shape, x.dtype(), x.device());
  stream_stack_table().at(x.device()).expand(x.contiguous(), factor, output);
  return output;
}

Tensor stream_sum(const Tensor& x, double factor) {
  if (x.ndim() < 2)
    fail<ShapeError>(
        fmt::format("stream_sum: x must have 2 or more dimensions, got {}", x.describe()));
  Shape shape;
  for (int i = 0; i + 2 < x.ndim(); ++i) shape.push_back(x.dim(i));
  shape.push_back(x.dim(-1));
  const Tensor output = Tensor::empty(shape, x.dtype(), x.device());
  stream_stack_table().at(x.device()).sum(x.contiguous(), factor, output);
  return output;
}

}  // namespace lectern
