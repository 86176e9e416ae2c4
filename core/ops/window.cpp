#include "core/ops/window.h"

#include "core/parallel.h"

#include <algorithm>
#include <cstring>

namespace lectern {
namespace {

std::int64_t windows_along(std::int64_t size, std::int64_t window) {
  return (size + window - 1) / window;
}

/// Calls f(grid, windowed, valid) for every row of every window: element offsets of its first token
/// in the grid tensor and in the windowed one, and how many of its `window` tokens are inside the
/// grid (0 for a row below it).
template <typename F>
void for_window_rows(const Shape& grid, std::int64_t window, F&& f) {
  const std::int64_t h = grid[1], w = grid[2], channels = grid[3];
  const std::int64_t nh = windows_along(h, window), nw = windows_along(w, window);
  const std::int64_t grain = std::max<std::int64_t>(1, (1 << 14) / (window * channels));
  parallel_for(grid[0] * nh * nw * window, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t wx = i / window % nw, wy = i / (window * nw) % nh;
      const std::int64_t batch = i / (window * nw * nh);
      const std::int64_t y = wy * window + i % window, x = wx * window;
      const std::int64_t valid = y < h ? std::min(window, w - x) : 0;
      f(((batch * h + y) * w + x) * channels, i * window * channels, valid);
    }
  });
}

void partition_cpu(const Tensor& x, std::int64_t window, const Tensor& windows) {
  const std::size_t token = static_cast<std::size_t>(x.dim(3)) * size_of(x.dtype());
  const std::int64_t size = static_cast<std::int64_t>(size_of(x.dtype()));
  const char* from = static_cast<const char*>(x.raw());
  char* to = static_cast<char*>(windows.raw());
  for_window_rows(x.shape(), window,
                  [=](std::int64_t grid, std::int64_t windowed, std::int64_t valid) {
                    const std::size_t inside = static_cast<std::size_t>(valid) * token;
                    if (inside > 0) std::memcpy(to + windowed * size, from + grid * size, inside);
                    std::memset(to + windowed * size + inside, 0,
                                static_cast<std::size_t>(window) * token - inside);
                  });
}

void merge_cpu(const Tensor& windows, std::int64_t window, const Tensor& x) {
  const std::size_t token = static_cast<std::size_t>(x.dim(3)) * size_of(x.dtype());
  const std::int64_t size = static_cast<std::int64_t>(size_of(x.dtype()));
  const char* from = static_cast<const char*>(windows.raw());
  char* to = static_cast<char*>(x.raw());
  for_window_rows(x.shape(), window,
                  [=](std::int64_t grid, std::int64_t windowed, std::int64_t valid) {
                    if (valid > 0)
                      std::memcpy(to + grid * size, from + windowed * size,
                                  static_cast<std::size_t>(valid) * token);
                  });
}

void check(const Tensor& x, int ndim, std::int64_t window, std::string_view operation,
           std::string_view name) {
  if (window < 1)
    fail<ConfigError>(fmt::format("{}: window must be at least 1, got {}", operation, window));
  check_ndim(x, ndim, operation, name);
  check_contiguous(x, operation, name);
  check_computable(x, operation, name);
}

}  // namespace

KernelTable<WindowKernels>& window_table() {
  static KernelTable<WindowKernels> instance("window", {partition_cpu, merge_cpu});
  return instance;
}

Tensor window_partition(const Tensor& x, std::int64_t window) {
  check(x, 4, window, "window_partition", "x");
  const std::int64_t count =
      x.dim(0) * windows_along(x.dim(1), window) * windows_along(x.dim(2), window);
  const Tensor windows = Tensor::empty({count, window * window, x.dim(3)}, x.dtype(), x.device());
  if (windows.numel() > 0) window_table().at(x.device()).partition(x, window, windows);
  return windows;
}

Tensor window_merge(const Tensor& windows, std::int64_t window, std::int64_t batch, std::int64_t h,
                    std::int64_t w) {
  check(windows, 3, window, "window_merge", "windows");
  if (batch < 0 || h < 0 || w < 0)
    fail<ShapeError>(fmt::format("window_merge: batch, h and w must be at least 0, got {}, {}, {}",
                                 batch, h, w));
  const std::int64_t count = batch * windows_along(h, window) * windows_along(w, window);
  check_shape(windows, {count, window * window, windows.dim(2)}, "window_merge", "windows");
  const Tensor x = Tensor::empty({batch, h, w, windows.dim(2)}, windows.dtype(), windows.device());
  if (x.numel() > 0) window_table().at(x.device()).merge(windows, window, x);
  return x;
}

}  // namespace lectern
