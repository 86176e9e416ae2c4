// Sinkhorn of one matrix by one thread, which holds it in registers (core/ops/sinkhorn_math.h).
// What backward needs of the iterations is recomputed and stays in shared memory.
#pragma once

#include "core/ops/sinkhorn_math.h"
#include "cuda/device_code.h"

#include <algorithm>
#include <cstddef>

namespace lectern::cuda {

/// The divisors of one thread, those of its neighbours beside them: no bank conflicts.
struct ThreadDivisors {
  Shared<float> memory;
  int stride, thread;
  __device__ decltype(auto) operator[](int i) const { return memory[i * stride + thread]; }
};

/// For a forward pass, which keeps none.
struct NoDivisors {
  struct Nowhere {
    const __device__ Nowhere& operator=(float) const { return *this; }
  };
  __device__ Nowhere operator[](int) const { return {}; }
};

/// Divisors of one matrix.
inline int divisor_count(StreamConvention convention, int iterations, int streams) {
  return stream_math::sinkhorn_steps(convention, iterations) * streams;
}
/// Threads of a block that may have `count` divisors each, at most `most`. One always may: 8
/// streams and 1000 iterations take 64,000 bytes.
inline int divisor_threads(int count, int most) {
  constexpr int kBytes = 64 << 10;
  return count == 0 ? most : std::min(most, kBytes / (count * static_cast<int>(sizeof(float))));
}

template <int N, typename Divisors>
class SinkhornThread {
 public:
  __device__ SinkhornThread(StreamConvention convention, int iterations, const Divisors& divisors)
      : convention_(convention), iterations_(iterations), divisors_(divisors) {}

  /// logits -> matrix.
  __device__ void forward(const float* logits, float* matrix) {
    float m[N * N];
    copy(logits, m);
    if (is_deep(logits)) {
      stream_math::log_sinkhorn_forward<N>(iterations_, m, divisors_);
      for (int k = 0; k < N * N; ++k) matrix[k] = stream_math::exponential(m[k]);
    } else {
      stream_math::sinkhorn_forward<N>(convention_, iterations_, m, divisors_);
      copy(m, matrix);
    }
  }

  /// After forward() of the same logits: grad of the matrix in, of the logits out.
  __device__ void backward(const float* logits, const float* matrix, float* grad) {
    float m[N * N], g[N * N];
    copy(grad, g);
    if (is_deep(logits)) {
      copy(logits, m);
      stream_math::log_sinkhorn_forward<N>(iterations_, m, divisors_);
      stream_math::log_sinkhorn_backward<N>(iterations_, logits, m, divisors_, g);
    } else {
      copy(matrix, m);
      stream_math::sinkhorn_backward<N>(convention_, iterations_, logits, m, divisors_, g);
    }
    copy(g, grad);
  }

 private:
  __device__ static void copy(const float* from, float* to) {
#pragma unroll
    for (int k = 0; k < N * N; ++k) to[k] = from[k];
  }
  /// Rare: a column so far below the others that only logarithms hold it.
  __device__ bool is_deep(const float* logits) const {
    return convention_ == StreamConvention::paper &&
           stream_math::column_floor<N>(logits) < stream_math::kColumnFloor<float>;
  }

  StreamConvention convention_;
  int iterations_;
  Divisors divisors_;
};

}  // namespace lectern::cuda
