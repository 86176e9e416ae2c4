// dropout: each element is 0 with a probability, or else so much larger that the mean stays
// (Srivastava et al., JMLR 15, 2014).
//
//   x    [...]  f32 or f64, contiguous or copied first
//   out  [...]  out[i] = 0 where u_i < probability, else x[i] / (1 - probability)
// u_i is uniform in [0, 1): word i % 4 of block i / 4 of the stream, so that it depends on neither
// threads nor device, and backward, which is the same function of the gradient, draws it again.
// Throws ConfigError unless 0 <= probability < 1.
#pragma once

#include "core/kernel_table.h"
#include "core/random.h"
#include "core/tensor.h"

namespace lectern {

Tensor dropout(const Tensor& x, double probability, const RandomKey& key);

struct DropoutKernels {
  void (*forward)(const Tensor& x, double probability, const RandomKey& key, const Tensor& out);
};
KernelTable<DropoutKernels>& dropout_table();

}  // namespace lectern
