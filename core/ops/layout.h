// layout: copies that move elements and change none: slice, concat, repeat, permute.
//
// Any dtype, results contiguous, strided inputs allowed. Dimensions may be negative, from the end.
// All throw ShapeError on a bad argument, naming it. Empty tensors are fine.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

#include <cstdint>
#include <span>
#include <vector>

namespace lectern {

/// Rows begin..end-1 of a dimension. A view, not a copy, where the rows already lie together.
Tensor slice(const Tensor& x, int dim, std::int64_t begin, std::int64_t end);

/// Zeros of `shape` with `x` laid into rows begin.. of a dimension: the transpose of slice.
Tensor pad_slice(const Tensor& x, const Shape& shape, int dim, std::int64_t begin);

/// Tensors joined along a dimension; the other sizes and the dtypes must agree. At least one
/// tensor.
Tensor concat(const std::vector<Tensor>& tensors, int dim);

/// x [...] -> [n, ...], n copies; n >= 0.
Tensor repeat_leading(const Tensor& x, std::int64_t n);

/// Output dimension i is dimension dims[i] of x.
Tensor permute(const Tensor& x, std::span<const int> dims);

struct LayoutKernels {
  /// out[..., at .. at + n - 1, ...] = x along `dim`; `out` and `x` contiguous, n = x's size there.
  void (*copy_into)(const Tensor& x, const Tensor& out, int dim, std::int64_t at);
  /// out = x[..., begin .. begin + n - 1, ...], n = out's size of `dim`.
  void (*copy_from)(const Tensor& x, const Tensor& out, int dim, std::int64_t begin);
  void (*repeat)(const Tensor& x, const Tensor& out);
  void (*permute)(const Tensor& x, std::span<const int> dims, const Tensor& out);
  void (*zero)(const Tensor& out);
};
KernelTable<LayoutKernels>& layout_table();

}  // namespace lectern
