#include "autograd/ops/reduce.h"

#include "core/ops/elementwise.h"
#include "core/ops/reduce.h"

namespace lectern {
namespace {

/// A tensor of `shape` whose elements are all grad * factor.
Tensor spread(const Tensor& grad, const Shape& shape, double factor) {
  return Tensor::full(shape, grad.item() * factor, grad.dtype(), grad.device());
}

}  // namespace

Variable sum(const Variable& x) {
  return record("sum", sum(x.value()), {x},
                [shape = x.shape()](const Tensor& grad) -> std::vector<Tensor> {
                  return {spread(grad, shape, 1.0)};
                });
}

Variable mean(const Variable& x) {
  const std::int64_t n = x.value().numel();
  if (n == 0)
    fail<ShapeError>(fmt::format("mean: x must not be empty, got {}", x.value().describe()));
  const double factor = 1.0 / static_cast<double>(n);
  return record("mean", scale(sum(x.value()), factor), {x},
                [shape = x.shape(), factor](const Tensor& grad) -> std::vector<Tensor> {
                  return {spread(grad, shape, factor)};
                });
}

}  // namespace lectern
