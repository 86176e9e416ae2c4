#include "core/ops/window.h"
#include "cuda/launch.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

namespace lectern::cuda {
namespace {

constexpr unsigned kThreads = 256;

struct Grid {
  std::int64_t batch, h, w, channels, window;
  std::int64_t windows_h, windows_w;
};

Grid grid_of(const Tensor& x, std::int64_t window) {
  return {x.dim(0),
          x.dim(1),
          x.dim(2),
          x.dim(3),
          window,
          ceil_divide(x.dim(1), window),
          ceil_divide(x.dim(2), window)};
}

/// Partition: windows = x, zeros where a window leaves the grid. Merge: x = windows. One thread a
/// pack of channels of a token of a window; channels a multiple of N.
template <typename T, int N, bool kMerge>
__global__ void window_kernel(Span<const T> from, Span<T> to, Grid g) {
  const std::int64_t packs = g.channels / N;
  const std::int64_t count = g.batch * g.windows_h * g.windows_w * g.window * g.window * packs;
  for (std::int64_t i = grid_thread(); i < count; i += grid_threads()) {
    const std::int64_t column = i % packs * N, token = i / packs;
    const std::int64_t dx = token % g.window, dy = token / g.window % g.window;
    const std::int64_t number = token / (g.window * g.window);
    const std::int64_t x = number % g.windows_w * g.window + dx;
    const std::int64_t y = number / g.windows_w % g.windows_h * g.window + dy;
    const std::int64_t batch = number / (g.windows_w * g.windows_h);
    const bool inside = y < g.h && x < g.w;
    const std::int64_t in_grid = ((batch * g.h + y) * g.w + x) * g.channels + column;
    const std::int64_t in_window = token * g.channels + column;
    if constexpr (kMerge) {
      if (inside) to.template store<N>(in_grid, from.template load<N>(in_window));
    } else {
      Pack<T, N> pack{};
      if (inside) pack = from.template load<N>(in_grid);
      to.template store<N>(in_window, pack);
    }
  }
}

template <bool kMerge>
void move(const Tensor& from, const Tensor& to, const Grid& grid) {
  const Tensor& windows = kMerge ? from : to;
  dispatch_storage(from.dtype(), "window", [&]<typename T>() {
    dispatch_width<T>(grid.channels, {&from, &to}, [&]<int N>() {
      launch(kMerge ? "window_merge" : "window_partition",
             {grid_for(windows.numel() / N, kThreads), kThreads}, window_kernel<T, N, kMerge>,
             span<const T>(from), span<T>(to), grid);
    });
  });
}

void partition(const Tensor& x, std::int64_t window, const Tensor& windows) {
  move<false>(x, windows, grid_of(x, window));
}

void merge(const Tensor& windows, std::int64_t window, const Tensor& x) {
  move<true>(windows, x, grid_of(x, window));
}

}  // namespace

void register_window() { window_table().set(DeviceType::cuda, {partition, merge}); }

}  // namespace lectern::cuda
