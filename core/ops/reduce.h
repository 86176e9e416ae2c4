// reduce: sums, in an order that depends on shapes only, never on the number of threads: blocks of
// fixed size are summed each on its own, then combined in order.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

#include <cstdint>

namespace lectern {

/// Sum of all elements, a scalar of x's dtype (f32 or f64); accumulates in f64. 0 for an empty x.
/// Throws DTypeError for other dtypes. A strided x is copied.
Tensor sum(const Tensor& x);

/// x [rows..., shape...] -> [shape...]: the sum over leading dimensions. `shape`, its leading ones
/// dropped, must be a suffix of x's shape (is_suffix of elementwise.h), else ShapeError.
/// Accumulates in x's dtype. Zeros when there are no rows.
Tensor sum_leading(const Tensor& x, const Shape& shape);

/// Sum of squares of all elements, accumulated in f64. f32, f64 or bf16. 0 for an empty x.
double squared_norm(const Tensor& x);

struct ReduceKernels {
  void (*sum)(const Tensor& x, const Tensor& out);
  double (*squared_norm)(const Tensor& x);
  /// x seen as [rows, out.numel()].
  void (*sum_leading)(const Tensor& x, const Tensor& out);
};
KernelTable<ReduceKernels>& reduce_table();

}  // namespace lectern
