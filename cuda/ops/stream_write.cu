#include "core/ops/stream_count.h"
#include "core/ops/stream_write.h"
#include "cuda/collective.h"
#include "cuda/launch.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

namespace lectern::cuda {
namespace {

constexpr int kMostThreads = 256, kMostWarps = kMostThreads / kWarp;

struct Forward {
  Span<const float> x, mix, post, y;
  Span<float> out;
  std::int64_t width;
};

/// A block has a token, whose coefficients every thread keeps in registers.
template <int N, int W>
__global__ void stream_write_kernel(Forward a) {
  const std::int64_t token = blockIdx.x;
  float mix[N * N], post[N];
#pragma unroll
  for (int k = 0; k < N * N; ++k) mix[k] = a.mix[token * N * N + k];
#pragma unroll
  for (int i = 0; i < N; ++i) post[i] = a.post[token * N + i];
  for (std::int64_t c = threadIdx.x * W; c < a.width; c += blockDim.x * W) {
    Pack<float, W> x[N];
#pragma unroll
    for (int j = 0; j < N; ++j) x[j] = a.x.template load<W>((token * N + j) * a.width + c);
    const auto y = a.y.template load<W>(token * a.width + c);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      Pack<float, W> out;
#pragma unroll
      for (int e = 0; e < W; ++e) {
        out[e] = post[i] * y[e];
#pragma unroll
        for (int j = 0; j < N; ++j) out[e] += mix[i * N + j] * x[j][e];
      }
      a.out.template store<W>((token * N + i) * a.width + c, out);
    }
  }
}

struct Backward {
  Span<const float> grad, post, y;
  Span<float> grad_y, grad_post;
  std::int64_t width;
};

template <int N, int W>
__global__ void stream_write_backward_kernel(Backward a) {
  SharedMemory memory;
  const auto scratch = memory.take<float>(kMostWarps * N);
  const std::int64_t token = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp,
            warps = static_cast<int>(blockDim.x) / kWarp;
  float post[N], dot[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    post[i] = a.post[token * N + i];
    dot[i] = 0.0f;
  }
  for (std::int64_t c = thread * W; c < a.width; c += blockDim.x * W) {
    const auto y = a.y.template load<W>(token * a.width + c);
    Pack<float, W> sum;
#pragma unroll
    for (int e = 0; e < W; ++e) sum[e] = 0.0f;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const auto grad = a.grad.template load<W>((token * N + i) * a.width + c);
#pragma unroll
      for (int e = 0; e < W; ++e) {
        sum[e] += post[i] * grad[e];
        dot[i] += grad[e] * y[e];
      }
    }
    a.grad_y.template store<W>(token * a.width + c, sum);
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float sum = warp_sum(dot[i]);
    if (lane == 0) scratch[warp * N + i] = sum;
  }
  __syncthreads();
  if (thread >= N) return;
  float total = 0;
  for (int w = 0; w < warps; ++w) total += scratch[w * N + thread];
  a.grad_post[token * N + thread] = total;
}

void forward(const Tensor& x, const Tensor& mix, const Tensor& post, const Tensor& y,
             const Tensor& output) {
  check_dtype(x, DType::f32, "stream_write", "x");
  const std::int64_t width = x.dim(-1), tokens = post.numel() / x.dim(-2);
  if (tokens == 0) return;
  dispatch_streams(x.dim(-2), [&]<int N>() {
    dispatch_width<float>(width, {&x, &y, &output}, [&]<int W>() {
      launch("stream_write", {static_cast<unsigned>(tokens), row_threads(width / W, kMostThreads)},
             stream_write_kernel<N, W>,
             Forward{span<const float>(x), span<const float>(mix), span<const float>(post),
                     span<const float>(y), span<float>(output), width});
    });
  });
}

void backward(const Tensor& grad_output, const Tensor& post, const Tensor& y,
              const StreamWriteGradients& result) {
  check_dtype(y, DType::f32, "stream_write", "y");
  const std::int64_t n = post.dim(-1), width = y.dim(-1), tokens = post.numel() / n;
  if (tokens == 0) return;
  dispatch_streams(n, [&]<int N>() {
    dispatch_width<float>(width, {&grad_output, &y, &result.y}, [&]<int W>() {
      launch("stream_write_backward",
             {static_cast<unsigned>(tokens), row_threads(width / W, kMostThreads),
              shared_bytes_of<float>(kMostWarps * N)},
             stream_write_backward_kernel<N, W>,
             Backward{span<const float>(grad_output), span<const float>(post), span<const float>(y),
                      span<float>(result.y), span<float>(result.post), width});
    });
  });
}

}  // namespace

void register_stream_write() { stream_write_table().set(DeviceType::cuda, {forward, backward}); }

}  // namespace lectern::cuda
