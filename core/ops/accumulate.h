// accumulate: sum += term, in place. The one operation that backward() itself needs.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

namespace lectern {

/// sum[i] += term[i]. Both f32 or both f64, same shape; `sum` contiguous. Throws ShapeError or
/// DTypeError otherwise. An empty tensor is left as it is.
void accumulate(const Tensor& sum, const Tensor& term);

struct AccumulateKernels {
  void (*forward)(const Tensor& sum, const Tensor& term);
};
KernelTable<AccumulateKernels>& accumulate_table();

}  // namespace lectern
