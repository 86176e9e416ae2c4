#include "core/ops/stream_write.h"

#include "core/cpu/simd.h"
#include "core/ops/sinkhorn_cpu.h"
#include "core/parallel.h"

namespace lectern {
namespace {

/// Calls f(column, count of columns) for each register of columns.
template <typename T, typename F>
inline void for_each_register(std::int64_t width, F&& f) {
  constexpr int kCount = Lanes<T>::kCount;
  std::int64_t c = 0;
  for (; c + kCount <= width; c += kCount)
    f(
        c, [](const T* from) { return Lanes<T>::load(from); },
        [](Lanes<T> value, T* to) { value.store(to); });
  if (c == width) return;
  const int rest = static_cast<int>(width - c);
  f(
      c, [=](const T* from) { return Lanes<T>::load(from, rest); },
      [=](Lanes<T> value, T* to) { value.store(to, rest); });
}

template <int N, typename T>
void forward_token(const T* x, const T* mix, const T* post, const T* y, std::int64_t width,
                   T* out) {
  using V = Lanes<T>;
  for_each_register<T>(width, [&](std::int64_t c, auto load, auto store) {
    V stream[N];
    const V layer = load(y + c);
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) stream[j] = load(x + j * width + c);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
      V total = V(post[i]) * layer;
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) total += V(mix[i * N + j]) * stream[j];
      store(total, out + i * width + c);
    }
  });
}

template <int N, typename T>
void backward_token(const T* grad, const T* post, const T* y, std::int64_t width, T* grad_y,
                    T* grad_post) {
  using V = Lanes<T>;
  V dot[N];
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) dot[i] = V(T(0));
  for_each_register<T>(width, [&](std::int64_t c, auto load, auto store) {
    const V layer = load(y + c);
    V total(T(0));
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
      const V g = load(grad + i * width + c);
      total += V(post[i]) * g;
      dot[i] += g * layer;
    }
    store(total, grad_y + c);
  });
  for (int i = 0; i < N; ++i) grad_post[i] = dot[i].sum();
}

/// Tokens that make a thread worth waking.
std::int64_t token_grain(std::int64_t numbers_a_token) {
  return 1 + (1 << 14) / std::max<std::int64_t>(1, numbers_a_token);
}

void forward_cpu(const Tensor& x, const Tensor& mix, const Tensor& post, const Tensor& y,
                 const Tensor& output) {
  dispatch_floating(x.dtype(), "stream_write", [&]<typename T>() {
    dispatch_streams(x.dim(-2), [&]<int N>() {
      const std::int64_t width = x.dim(-1), tokens = post.numel() / N;
      const T *in = x.data<T>(), *m = mix.data<T>(), *p = post.data<T>(), *layer = y.data<T>();
      T* out = output.data<T>();
      parallel_for(tokens, token_grain(N * width), [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t t = begin; t < end; ++t)
          forward_token<N>(in + t * N * width, m + t * N * N, p + t * N, layer + t * width, width,
                           out + t * N * width);
      });
    });
  });
}

void backward_cpu(const Tensor& grad_output, const Tensor& post, const Tensor& y,
                  const StreamWriteGradients& result) {
  dispatch_floating(y.dtype(), "stream_write", [&]<typename T>() {
    dispatch_streams(post.dim(-1), [&]<int N>() {
      const std::int64_t width = y.dim(-1), tokens = post.numel() / N;
      const T *grad = grad_output.data<T>(), *p = post.data<T>(), *layer = y.data<T>();
      T *grad_y = result.y.data<T>(), *grad_post = result.post.data<T>();
      parallel_for(tokens, token_grain(N * width), [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t t = begin; t < end; ++t)
          backward_token<N>(grad + t * N * width, p + t * N, layer + t * width, width,
                            grad_y + t * width, grad_post + t * N);
      });
    });
  });
}

/// The shape of the streams with their last dimensions replaced.
Shape with_tail(const Shape& streams, std::initializer_list<std::int64_t> tail) {
  Shape out;
  for (int i = 0; i + 2 < streams.ndim(); ++i) out.push_back(streams[i]);
  for (const std::int64_t size : tail) out.push_back(size);
  return out;
}

void check(const Tensor& tensor, const Shape& shape, const Tensor& like, const char* name) {
  check_shape(tensor, shape, "stream_write", name);
  check_dtype(tensor, like.dtype(), "stream_write", name);
  check_device(tensor, like, "stream_write", name);
}

void check_streams(const Tensor& x, const char* name) {
  if (x.ndim() < 2 || x.dim(-2) < 1 || x.dim(-2) > kMaxStreams)
    fail<ShapeError>(fmt::format("stream_write: {} must be [..., n, C] with n from 1 to {}, got {}",
                                 name, kMaxStreams, x.describe()));
}

}  // namespace

KernelTable<StreamWriteKernels>& stream_write_table() {
  static KernelTable<StreamWriteKernels> table("stream_write", {forward_cpu, backward_cpu});
  return table;
}

Tensor stream_write(const Tensor& x, const Tensor& mix, const Tensor& post, const Tensor& y) {
  check_streams(x, "x");
  const std::int64_t n = x.dim(-2);
  check(mix, with_tail(x.shape(), {n, n}), x, "mix");
  check(post, with_tail(x.shape(), {n}), x, "post");
  check(y, with_tail(x.shape(), {x.dim(-1)}), x, "y");
  const Tensor output = Tensor::empty_like(x);
  stream_write_table()
      .at(x.device())
      .forward(x.contiguous(), mix.contiguous(), post.contiguous(), y.contiguous(), output);
  return output;
}

StreamWriteGradients stream_write_backward(const Tensor& grad_output, const Tensor& post,
                                           const Tensor& y) {
  check_streams(grad_output, "grad_output");
  check(post, with_tail(grad_output.shape(), {grad_output.dim(-2)}), grad_output, "post");
  check(y, with_tail(grad_output.shape(), {grad_output.dim(-1)}), grad_output, "y");
  const StreamWriteGradients result{Tensor::empty_like(y), Tensor::empty_like(post)};
  stream_write_table()
      .at(y.device())
      .backward(grad_output.contiguous(), post.contiguous(), y.contiguous(), result);
  return result;
}

}  // namespace lectern
