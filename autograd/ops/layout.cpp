#include "autograd/ops/layout.h"

#include "core/ops/layout.h"
#include "core/ops/reduce.h"

namespace lectern {

Variable view(const Variable& x, const Shape& shape) {
  return record("view", x.value().contiguous().view(shape), {x},
                [shape = x.shape()](const Tensor& grad) -> std::vector<Tensor> {
                  return {grad.contiguous().view(shape)};
                });
}

Variable slice(const Variable& x, int dim, std::int64_t begin, std::int64_t end) {
  return record("slice", slice(x.value(), dim, begin, end), {x},
                [shape = x.shape(), dim, begin](const Tensor& grad) -> std::vector<Tensor> {
                  return {pad_slice(grad, shape, dim, begin)};
                });
}

Variable concat(const std::vector<Variable>& tensors, int dim) {
  std::vector<Tensor> values;
  std::vector<bool> needed;
  for (const Variable& tensor : tensors) {
    values.push_back(tensor.value());
    needed.push_back(tensor.requires_grad());
  }
  Tensor joined = concat(values, dim);
  std::vector<std::int64_t> sizes;
  for (const Tensor& value : values) sizes.push_back(value.dim(dim));
  return record("concat", std::move(joined), tensors,
                [sizes = std::move(sizes), needed = std::move(needed), dim](const Tensor& grad) {
                  std::vector<Tensor> grads(sizes.size());
                  std::int64_t at = 0;
                  for (std::size_t i = 0; i < sizes.size(); at += sizes[i++])
                    if (needed[i]) grads[i] = slice(grad, dim, at, at + sizes[i]);
                  return grads;
                });
}

Variable repeat_leading(const Variable& x, std::int64_t n) {
  return record("repeat_leading", repeat_leading(x.value(), n), {x},
                [shape = x.shape()](const Tensor& grad) -> std::vector<Tensor> {
                  return {sum_leading(grad, shape)};
                });
}

Variable permute(const Variable& x, const std::vector<int>& dims) {
  Tensor moved = permute(x.value(), dims);
  std::vector<int> inverse(dims.size());
  for (std::size_t i = 0; i < dims.size(); ++i)
    inverse[static_cast<std::size_t>(dims[i])] = static_cast<int>(i);
  return record("permute", std::move(moved), {x},
                [inverse = std::move(inverse)](const Tensor& grad) -> std::vector<Tensor> {
                  return {permute(grad, inverse)};
                });
}

}  // namespace lectern
