#include "autograd/ops/matmul.h"

namespace lectern {
namespace {

/// With C = op(A) op(B): grad op(A) = G op(B)^T; when A itself was transposed, op(B) G^T.
Tensor grad_a(const Tensor& grad, const Tensor& b, const MatmulArgs& args) {
  if (args.transpose_a) return matmul(b, grad, {args.transpose_b, true});
  return matmul(grad, b, {false, !args.transpose_b});
}

Tensor grad_b(const Tensor& grad, const Tensor& a, const MatmulArgs& args) {
  if (args.transpose_b) return matmul(grad, a, {true, args.transpose_a});
  return matmul(a, grad, {!args.transpose_a, false});
}

}  // namespace

Variable matmul(const Variable& a, const Variable& b, const MatmulArgs& args) {
  const bool needs_a = a.requires_grad(), needs_b = b.requires_grad();
  const Tensor saved_a = needs_b ? a.value() : Tensor(), saved_b = needs_a ? b.value() : Tensor();
  return record("matmul", matmul(a.value(), b.value(), args), {a, b},
                [=](const Tensor& grad) -> std::vector<Tensor> {
                  return {needs_a ? grad_a(grad, saved_b, args) : Tensor(),
                          needs_b ? grad_b(grad, saved_a, args) : Tensor()};
                });
}

}  // namespace lectern
