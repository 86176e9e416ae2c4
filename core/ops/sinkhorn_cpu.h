// Sinkhorn for a register of tokens, for the CPU kernels that need H_res. Private to this room.
#pragma once

#include "core/cpu/simd.h"
#include "core/error.h"
#include "core/ops/sinkhorn_math.h"
#include "core/ops/stream_count.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace lectern {

/// Entry k of Lanes::kCount tokens, `width` numbers each, into lanes[k]; the last token stands in
/// for those that are missing.
template <typename T>
void load_tokens(const T* from, int width, int tokens, Lanes<T>* lanes) {
  for (int k = 0; k < width; ++k)
    for (int t = 0; t < Lanes<T>::kCount; ++t)
      lanes[k].v[t] = from[std::min(t, tokens - 1) * width + k];
}

template <typename T>
void store_tokens(const Lanes<T>* lanes, int width, int tokens, T* to) {
  for (int k = 0; k < width; ++k)
    for (int t = 0; t < tokens; ++t) to[t * width + k] = lanes[k].v[t];
}

/// Not inlined: unrolled code for eight numbers of streams and two types, once each (sinkhorn.cpp)
/// and not once a caller or a source.
template <int N, typename T>
class SinkhornBlock {
 public:
  SinkhornBlock(StreamConvention convention, int iterations)
      : convention_(convention),
        iterations_(iterations),
        divisors_(
            static_cast<std::size_t>(stream_math::sinkhorn_steps(convention, iterations) * N)),
        shifts_(static_cast<std::size_t>(2 * iterations * N)) {}

  /// logits -> matrix.
  [[gnu::noinline]] void forward(const Lanes<T>* logits, Lanes<T>* matrix) {
    std::copy_n(logits, N * N, matrix);
    stream_math::sinkhorn_forward<N>(convention_, iterations_, matrix, divisors_.data());
    for_each_deep_lane(logits, [&](int lane, T* m) {
      stream_math::log_sinkhorn_forward<N>(iterations_, m, shifts_.data());
      for (int k = 0; k < N * N; ++k) matrix[k].v[lane] = stream_math::exponential(m[k]);
    });
  }

  /// After forward() of the same logits: grad of the matrix in, of the logits out. Destroys
  /// `matrix`.
  [[gnu::noinline]] void backward(const Lanes<T>* logits, Lanes<T>* matrix, Lanes<T>* grad) {
    Lanes<T> result[N * N];
    std::copy_n(grad, N * N, result);
    stream_math::sinkhorn_backward<N>(convention_, iterations_, logits, matrix, divisors_.data(),
                                      result);
    for_each_deep_lane(logits, [&](int lane, T* m) {
      T scalar_logits[N * N], scalar_grad[N * N];
      for (int k = 0; k < N * N; ++k) {
        scalar_logits[k] = m[k];
        scalar_grad[k] = grad[k].v[lane];
      }
      stream_math::log_sinkhorn_forward<N>(iterations_, m, shifts_.data());
      stream_math::log_sinkhorn_backward<N>(iterations_, scalar_logits, m, shifts_.data(),
                                            scalar_grad);
      for (int k = 0; k < N * N; ++k) result[k].v[lane] = scalar_grad[k];
    });
    std::copy_n(result, N * N, grad);
  }

 private:
  /// Lanes of the paper's convention that need logarithms, one by one: rare.
  template <typename F>
  [[gnu::cold]] void for_each_deep_lane(const Lanes<T>* logits, F&& f) {
    if (convention_ != StreamConvention::paper) return;
    const Lanes<T> floor = stream_math::column_floor<N>(logits);
    for (int lane = 0; lane < Lanes<T>::kCount; ++lane) {
      if (floor.v[lane] >= stream_math::kColumnFloor<T>) continue;
      T m[N * N];
      for (int k = 0; k < N * N; ++k) m[k] = logits[k].v[lane];
      f(lane, m);
    }
  }

  StreamConvention convention_;
  int iterations_;
  std::vector<Lanes<T>> divisors_;
  std::vector<T> shifts_;
};

#define LECTERN_SINKHORN_BLOCKS(declared)  \
  declared class SinkhornBlock<1, float>;  \
  declared class SinkhornBlock<2, float>;  \
  declared class SinkhornBlock<3, float>;  \
  declared class SinkhornBlock<4, float>;  \
  declared class SinkhornBlock<5, float>;  \
  declared class SinkhornBlock<6, float>;  \
  declared class SinkhornBlock<7, float>;  \
  declared class SinkhornBlock<8, float>;  \
  declared class SinkhornBlock<1, double>; \
  declared class SinkhornBlock<2, double>; \
  declared class SinkhornBlock<3, double>; \
  declared class SinkhornBlock<4, double>; \
  declared class SinkhornBlock<5, double>; \
  declared class SinkhornBlock<6, double>; \
  declared class SinkhornBlock<7, double>; \
  declared class SinkhornBlock<8, double>;
LECTERN_SINKHORN_BLOCKS(extern template)

}  // namespace lectern
