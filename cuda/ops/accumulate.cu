#include "core/ops/accumulate.h"
#include "cuda/launch.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

namespace lectern::cuda {
namespace {

constexpr unsigned kThreads = 256;

/// sum[i] += term[i]; the last elements that make no pack go one by one.
template <typename T, int N>
__global__ void accumulate_kernel(Span<T> sum, Span<const T> term, std::int64_t count) {
  const std::int64_t packs = count / N, steps = packs + count % N;
  for (std::int64_t i = grid_thread(); i < steps; i += grid_threads()) {
    if (i < packs) {
      auto a = sum.template load<N>(i * N);
      const auto b = term.template load<N>(i * N);
      for (int k = 0; k < N; ++k) a[k] = from_float<T>(to_float(a[k]) + to_float(b[k]));
      sum.template store<N>(i * N, a);
    } else {
      const std::int64_t at = packs * N + i - packs;
      sum[at] = from_float<T>(to_float(sum[at]) + to_float(term[at]));
    }
  }
}

void forward(const Tensor& sum, const Tensor& term) {
  if (sum.numel() == 0) return;
  dispatch_storage(sum.dtype(), "accumulate", [&]<typename T>() {
    dispatch_width<T>(0, {&sum, &term}, [&]<int N>() {
      launch("accumulate", {grid_for(sum.numel(), kThreads * N), kThreads}, accumulate_kernel<T, N>,
             span<T>(sum), span<const T>(term), sum.numel());
    });
  });
}

}  // namespace

void register_accumulate() { accumulate_table().set(DeviceType::cuda, {forward}); }

}  // namespace lectern::cuda
