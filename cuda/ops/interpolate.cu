#include "core/ops/interpolate.h"
#include "cuda/launch.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

namespace lectern::cuda {
namespace {

constexpr unsigned kThreads = 256;

template <typename T>
struct Arguments {
  Span<const T> x;
  Span<T> out;
  Span<const std::int64_t> first, start;
  Span<const double> weight;
  std::int64_t input, output, inner, count;
};

/// One output element a thread, taps in ascending order.
template <typename T>
__global__ void resample_kernel(Arguments<T> a) {
  for (std::int64_t i = grid_thread(); i < a.count; i += grid_threads()) {
    const std::int64_t column = i % a.inner, o = i / a.inner % a.output;
    const std::int64_t outer = i / (a.inner * a.output), begin = a.start[o], end = a.start[o + 1];
    std::int64_t from = (outer * a.input + a.first[o]) * a.inner + column;
    float sum = 0;
    for (std::int64_t at = begin; at < end; ++at, from += a.inner)
      sum += static_cast<float>(a.weight[at]) * to_float(a.x[from]);
    a.out[i] = from_float<T>(sum);
  }
}

template <typename V>
Tensor uploaded(const std::vector<V>& values, Device device) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())}).to(device);
}

void resample(const Tensor& x, int dim, const ResampleWeights& weights, const Tensor& out) {
  if (out.numel() == 0) return;
  const Device device = x.device();
  const Tensor first = uploaded(weights.first, device), start = uploaded(weights.start, device);
  const Tensor weight = uploaded(weights.weight, device);
  std::int64_t inner = 1;
  for (int i = dim + 1; i < x.ndim(); ++i) inner *= x.dim(i);
  dispatch_storage(x.dtype(), "interpolate", [&]<typename T>() {
    launch("resample", {grid_for(out.numel(), kThreads), kThreads}, resample_kernel<T>,
           Arguments<T>{span<const T>(x), span<T>(out), span<const std::int64_t>(first),
                        span<const std::int64_t>(start), span<const double>(weight), weights.input,
                        weights.output, inner, out.numel()});
  });
}

}  // namespace

void register_interpolate() { interpolate_table().set(DeviceType::cuda, {resample}); }

}  // namespace lectern::cuda
