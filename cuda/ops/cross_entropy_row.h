// The row of a cross-entropy, a block going along it: shared by cross_entropy and
// linear_cross_entropy.
#pragma once

#include "cuda/collective.h"

namespace lectern::cuda {

/// Largest element and sum of exponentials of what a thread has seen, joined without ever leaving
/// the range of float.
struct RunningSum {
  float largest = -INFINITY;
  float sum = 0;

  __device__ void add(float x) {
    if (x > largest) {
      sum = sum * expf(largest - x) + 1.0f;
      largest = x;
    } else if (!(x == -INFINITY)) {  // NaN comes here, and stays
      sum += expf(x - largest);
    }
  }
};

/// log(sum(exp(row))) of `classes` elements from `begin`; all threads of the block get it.
template <typename T>
__device__ inline float log_sum_exp_of_row(const Span<T>& x, std::int64_t begin,
                                           std::int64_t classes, const Shared<float>& scratch) {
  RunningSum mine;
  for (std::int64_t c = threadIdx.x; c < classes; c += blockDim.x) mine.add(to_float(x[begin + c]));
  const float largest = block_max(scratch, mine.largest);
  // A thread without elements, or a row of -infinity, must not compute infinity - infinity.
  const float share =
      mine.largest == -INFINITY ? mine.sum : mine.sum * expf(mine.largest - largest);
  return largest + logf(block_sum(scratch, share));
}

}  // namespace lectern::cuda
