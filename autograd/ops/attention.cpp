#include "autograd/ops/attention.h"

#include "autograd/compute_dtype.h"

namespace lectern {

Variable attention(const Variable& qkv, const AttentionArgs& wanted, const Variable& table_h,
                   const Variable& table_w) {
  const Tensor x = qkv.value();
  AttentionArgs args = wanted;
  args.rounded |= compute_dtype() == DType::bf16 && x.dtype() == DType::f32;
  const Tensor h = table_h.defined() ? table_h.value() : Tensor();
  const Tensor w = table_w.defined() ? table_w.value() : Tensor();
  const AttentionResult result = attention_forward(x, args, h, w);
  std::vector<Variable> inputs{qkv};
  if (h.defined()) inputs.insert(inputs.end(), {table_h, table_w});
  return record("attention", result.out, std::move(inputs),
                [x, h, w, args, result](const Tensor& grad_out) -> std::vector<Tensor> {
                  AttentionGradients gradients =
                      attention_backward(grad_out, x, result, args, h, w);
                  if (!h.defined()) return {gradients.grad_qkv};
                  return {gradients.grad_qkv, gradients.grad_table_h, gradients.grad_table_w};
                });
}

}  // namespace lectern
