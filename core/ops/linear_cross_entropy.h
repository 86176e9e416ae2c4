// linear_cross_entropy: summed cross-entropy of logits = hidden weight^T without ever holding them.
//
//   loss_sum = sum over labelled rows n of (logsumexp_v(hidden[n] . weight[v]) - hidden[n] .
//              weight[labels[n]])
// hidden [N, C], weight [V, C] both f32, both f64 or both bf16, contiguous; labels [N] i32, -100 =
// ignored.
//
// Only labelled rows are computed, a few at a time: the buffer of logits is [R, V] with
// R = clamp(kLogitElements / V, 1, kMaxRows), at most 128 MiB in f32 (or one row, if that is more).
// When gradients are wanted they are computed in the same pass, while the logits are there:
//   s = softmax(logits) - onehot(label);  grad_hidden[n] = s weight;  grad_weight = sum_n s
//   hidden[n]
// and backward only multiplies them by the incoming scalar. So three matrix products in all, and
// the memory that lives from forward to backward is the two gradients. Log-sum-exp in f32 (f64 for
// f64), sum over rows in f64. For bf16 all results are f32, and s is rounded to bf16 for the two
// products. The chunks do not depend on the number of threads. No labelled row: loss_sum 0, count
// 0, zero gradients.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

#include <cstdint>

namespace lectern {

inline constexpr std::int64_t kLogitElements = std::int64_t{1} << 25;
inline constexpr std::int64_t kMaxLogitRows = 256;

struct LinearCrossEntropyTensors {
  Tensor loss_sum;         ///< scalar, dtype of hidden (f32 for bf16)
  std::int64_t count = 0;  ///< labelled rows
  Tensor grad_hidden;      ///< [N, C] gradient of loss_sum; undefined when not wanted
  Tensor grad_weight;      ///< [V, C] likewise
};

/// Throws ShapeError (shapes; a label outside 0..V-1 that is not -100, with its position) or
/// DTypeError.
LinearCrossEntropyTensors linear_cross_entropy_forward(const Tensor& hidden, const Tensor& weight,
                                                       const Tensor& labels, bool want_hidden,
                                                       bool want_weight);

struct LinearCrossEntropyKernels {
  LinearCrossEntropyTensors (*forward)(const Tensor& hidden, const Tensor& weight,
                                       const Tensor& labels, bool want_hidden, bool want_weight);
  /// tensor *= scalar[0], in place.
  void (*scale)(const Tensor& tensor, const Tensor& scalar);
};
KernelTable<LinearCrossEntropyKernels>& linear_cross_entropy_table();

/// tensor *= factor[0], in place; returns tensor. How backward applies the incoming gradient.
Tensor scale_in_place(const Tensor& tensor, const Tensor& factor);

}  // namespace lectern
