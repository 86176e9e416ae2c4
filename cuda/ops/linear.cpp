#include "core/ops/linear.h"

#include "cuda/matrix_product.h"
#include "cuda/ops/column_sum.h"
#include "cuda/ops/register_ops.h"

namespace lectern::cuda {
namespace {

/// f32 rows meet bf16 weights (generation from mapped weights): the rows are rounded, where the CPU
/// widens the weights.
void forward(const Tensor& x, const Tensor& weight, const Tensor& bias, WeightUse,
             const Tensor& y) {
  const std::int64_t m = x.dim(0), k = x.dim(1), n = weight.dim(0);
  matrix_product({.transpose_b = true,
                  .m = m,
                  .n = n,
                  .k = k,
                  .lda = k,
                  .ldb = weight.stride(0),
                  .ldc = n,
                  .bias = bias},
                 x.to(weight.dtype()), weight, y);
}

void grad_x(const Tensor& grad_y, const Tensor& weight, const Tensor& out) {
  const std::int64_t m = grad_y.dim(0), n = grad_y.dim(1), k = weight.dim(1);
  matrix_product({.m = m, .n = k, .k = n, .lda = n, .ldb = weight.stride(0), .ldc = k}, grad_y,
                 weight, out);
}

void grad_weight(const Tensor& grad_y, const Tensor& x, bool accumulate, const Tensor& out) {
  const std::int64_t m = grad_y.dim(0), n = grad_y.dim(1), k = x.dim(1);
  matrix_product({.transpose_a = true,
                  .m = n,
                  .n = k,
                  .k = m,
                  .lda = n,
                  .ldb = k,
                  .ldc = k,
                  .accumulate = accumulate},
                 grad_y, x, out);
}

void grad_bias(const Tensor& grad_y, const Tensor& out) {
  column_sum(grad_y, grad_y.dim(0), grad_y.dim(1), out);
}

}  // namespace

void register_linear() {
  linear_table().set(DeviceType::cuda, {forward, grad_x, grad_weight, grad_bias});
}

}  // namespace lectern::cuda
