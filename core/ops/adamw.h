// adamw: one update of many parameters; formula in nn/optim/optimizer.h.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

#include <cstdint>
#include <span>

namespace lectern {

/// One parameter. All four tensors have one shape and dtype (f32 or f64) and are contiguous.
struct AdamWParameter {
  Tensor value, grad, exp_avg, exp_avg_sq;
  double weight_decay = 0;
  std::int64_t step = 1;  ///< updates including this one
};

struct AdamWStep {
  double learning_rate, beta1, beta2, epsilon;
  double gradient_scale = 1.0;
};

/// Updates value, exp_avg and exp_avg_sq in place, reading and writing each once, all parameters in
/// one parallel loop over chunks; marks the values as modified. Throws ShapeError or DTypeError.
void adamw_update(std::span<const AdamWParameter> parameters, const AdamWStep& step);

/// Sum of the squares of all elements of all tensors in f64, over chunks of fixed size that are
/// added in order: the same bits for any number of threads. Contiguous f32 or f64.
double sum_of_squares(std::span<const Tensor> tensors);

/// False when an element is NaN or infinite.
bool all_finite(const Tensor& tensor);

struct AdamWKernels {
  void (*update)(std::span<const AdamWParameter> parameters, const AdamWStep& step);
  double (*sum_of_squares)(std::span<const Tensor> tensors);
  bool (*all_finite)(const Tensor& tensor);
};
KernelTable<AdamWKernels>& adamw_table();

}  // namespace lectern
