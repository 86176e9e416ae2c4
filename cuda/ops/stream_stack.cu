#include "core/ops/stream_stack.h"
#include "cuda/launch.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

namespace lectern::cuda {
namespace {

constexpr unsigned kThreads = 256;

struct Problem {
  Span<const float> in;
  Span<float> out;
  std::int64_t tokens, streams, width;
  float factor;
};

template <int W>
__global__ void stream_expand_kernel(Problem a) {
  const std::int64_t packs = a.width / W;
  for (std::int64_t i = grid_thread(); i < a.tokens * packs; i += grid_threads()) {
    const std::int64_t token = i / packs, c = i % packs * W;
    auto value = a.in.template load<W>(token * a.width + c);
    for (int e = 0; e < W; ++e) value[e] *= a.factor;
    for (std::int64_t j = 0; j < a.streams; ++j)
      a.out.template store<W>((token * a.streams + j) * a.width + c, value);
  }
}

template <int W>
__global__ void stream_sum_kernel(Problem a) {
  const std::int64_t packs = a.width / W;
  for (std::int64_t i = grid_thread(); i < a.tokens * packs; i += grid_threads()) {
    const std::int64_t token = i / packs, c = i % packs * W;
    Pack<float, W> sum;
    for (int e = 0; e < W; ++e) sum[e] = 0.0f;
    for (std::int64_t j = 0; j < a.streams; ++j) {
      const auto value = a.in.template load<W>((token * a.streams + j) * a.width + c);
      for (int e = 0; e < W; ++e) sum[e] += a.factor * value[e];
    }
    a.out.template store<W>(token * a.width + c, sum);
  }
}

void expand(const Tensor& x, double factor, const Tensor& output) {
  check_dtype(x, DType::f32, "stream_expand", "x");
  if (output.numel() == 0) return;
  const std::int64_t width = x.dim(-1);
  dispatch_width<float>(width, {&x, &output}, [&]<int W>() {
    launch("stream_expand", {grid_for(x.numel(), kThreads * W), kThreads}, stream_expand_kernel<W>,
           Problem{span<const float>(x), span<float>(output), x.numel() / width, output.dim(-2),
                   width, static_cast<float>(factor)});
  });
}

void sum(const Tensor& x, double factor, const Tensor& output) {
  check_dtype(x, DType::f32, "stream_sum", "x");
  if (output.numel() == 0) return;
  const std::int64_t width = x.dim(-1);
  dispatch_width<float>(width, {&x, &output}, [&]<int W>() {
    launch("stream_sum", {grid_for(output.numel(), kThreads * W), kThreads}, stream_sum_kernel<W>,
           Problem{span<const float>(x), span<float>(output), output.numel() / width, x.dim(-2),
                   width, static_cast<float>(factor)});
  });
}

}  // namespace

void register_stream_stack() { stream_stack_table().set(DeviceType::cuda, {expand, sum}); }

}  // namespace lectern::cuda
