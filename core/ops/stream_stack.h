// stream_expand and stream_sum: into n residual streams at the entry of a stack of layers, and out
// of them at its end. Each is the other's gradient.
//
//   expand  out[..., i, c] = factor * x[..., c]        x [..., C] -> [..., n, C]
//   sum     out[..., c] = factor * sum_i x[..., i, c]   x [..., n, C] -> [..., C]
//
// f32 or f64 (CUDA: f32); n at least 1. The mean of the streams is the sum with factor 1/n.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

namespace lectern {

/// Throws ShapeError when x has no dimension or streams < 1, DTypeError when it is not f32/f64.
Tensor stream_expand(const Tensor& x, std::int64_t streams, double factor = 1.0);
/// Throws ShapeError when x has fewer than 2 dimensions, DTypeError when it is not f32/f64.
Tensor stream_sum(const Tensor& x, double factor = 1.0);

struct StreamStackKernels {
  void (*expand)(const Tensor& x, double factor, const Tensor& output);
  void (*sum)(const Tensor& x, double factor, const Tensor& output);
};
KernelTable<StreamStackKernels>& stream_stack_table();

}  // namespace lectern
