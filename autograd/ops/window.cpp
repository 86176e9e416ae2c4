#include "autograd/ops/window.h"

namespace lectern {

Variable window_partition(const Variable& x, std::int64_t window) {
  const Shape grid = x.shape();
  return record("window_partition", window_partition(x.value(), window), {x},
                [grid, window](const Tensor& grad_out) -> std::vector<Tensor> {
                  return {window_merge(grad_out.contiguous(), window, grid[0], grid[1], grid[2])};
                });
}

Variable window_merge(const Variable& windows, std::int64_t window, std::int64_t batch,
                      std::int64_t h, std::int64_t w) {
  return record("window_merge", window_merge(windows.value(), window, batch, h, w), {windows},
                [window](const Tensor& grad_out) -> std::vector<Tensor> {
                  return {window_partition(grad_out.contiguous(), window)};
                });
}

}  // namespace lectern
