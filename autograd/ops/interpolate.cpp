#include "autograd/ops/interpolate.h"

#include "core/ops/interpolate.h"

namespace lectern {
namespace {

Variable resample(const Variable& x, int dim, ResampleWeights weights) {
  Tensor value = resample(x.value(), dim, weights);
  return record("interpolate", std::move(value), {x},
                [dim, weights = std::move(weights)](const Tensor& grad) -> std::vector<Tensor> {
                  return {resample(grad, dim, transpose(weights))};
                });
}

}  // namespace

Variable interpolate_bicubic(const Variable& x, std::int64_t height, std::int64_t width) {
  check_ndim(x.value(), 4, "interpolate_bicubic", "x");
  Variable out = x;
  if (x.dim(1) != height) out = resample(out, 1, bicubic_weights(x.dim(1), height));
  if (x.dim(2) != width) out = resample(out, 2, bicubic_weights(x.dim(2), width));
  return out;
}

Variable interpolate_linear(const Variable& table, std::int64_t length) {
  check_ndim(table.value(), 2, "interpolate_linear", "table");
  if (table.dim(0) == length) return table;
  return resample(table, 0, linear_weights(table.dim(0), length));
}

}  // namespace lectern
