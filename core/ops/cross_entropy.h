// cross_entropy: mean negative log-likelihood of labels under softmax(logits).
//
//   loss = 1/count * sum over labelled rows n of (logsumexp(logits[n]) - logits[n, labels[n]])
// logits [N, V] f32 or f64, contiguous; labels [N] i32, kIgnoredLabel (-100) leaves a row out
// loss   scalar, dtype of logits; summed over rows in f64. No labelled row: loss 0, gradient 0
//        (PyTorch gives NaN here).
// grad_logits[n] = grad_loss / count * (softmax(logits[n]) - onehot(labels[n])); 0 for ignored rows
// Saves logits and the log-sum-exp of each row.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

#include <cstdint>
#include <string_view>
#include <vector>

namespace lectern {

/// Rows with this label do not count. The number is PyTorch's.
inline constexpr std::int32_t kIgnoredLabel = -100;

struct CrossEntropyResult {
  Tensor loss;             ///< scalar
  Tensor log_sum_exp;      ///< [N]; 0 in ignored rows
  std::int64_t count = 0;  ///< labelled rows
};

/// Throws ShapeError (shapes; a label outside 0..V-1, with its position) or DTypeError.
CrossEntropyResult cross_entropy_forward(const Tensor& logits, const Tensor& labels);
Tensor cross_entropy_backward(const Tensor& grad_loss, const Tensor& logits, const Tensor& labels,
                              const CrossEntropyResult& forward);

/// Positions of the labelled rows, ascending. Throws ShapeError naming position and value of a
/// label that is neither in 0..classes-1 nor kIgnoredLabel. Host labels only.
std::vector<std::int32_t> labelled_rows(const Tensor& labels, std::int64_t classes,
                                        std::string_view operation);

struct CrossEntropyKernels {
  CrossEntropyResult (*forward)(const Tensor& logits, const Tensor& labels);
  Tensor (*backward)(const Tensor& grad_loss, const Tensor& logits, const Tensor& labels,
                     const CrossEntropyResult& forward);
};
KernelTable<CrossEntropyKernels>& cross_entropy_table();

}  // namespace lectern
