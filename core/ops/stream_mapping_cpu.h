// Coefficients of a register of tokens, forward and backward. Private to this room.
#pragma once

#include "core/ops/sinkhorn_cpu.h"
#include "core/ops/stream_mapping_math.h"
#include "core/ops/stream_read.h"

#include <algorithm>

namespace lectern {

template <int N, typename T>
class MappingBlock {
 public:
  using V = Lanes<T>;
  using Math = StreamMappingMath<N, V, T, const T*, SinkhornBlock<N, T>>;
  static constexpr int kMaxRows = Math::kMaxRows;

  /// scale [3] and base [m] as in stream_read.h; `width` is C.
  MappingBlock(const StreamReadArgs& args, const T* scale, const T* base, std::int64_t width)
      : math_(args.rule(), scale, base, static_cast<T>(width),
              SinkhornBlock<N, T>(args.convention, static_cast<int>(args.iterations))) {}

  int rows() const { return math_.rows(); }
  int norms() const { return math_.norms(); }

  [[gnu::noinline]] void forward(const V* products, const V* squares,
                                 StreamCoefficients<N, V>& out) {
    math_.forward(products, squares, out);
  }

  /// After forward() of the same tokens. grad: of pre, post and mix. Writes the gradients of the
  /// raw products and the factor of x that comes from the norms; adds to grad_base and grad_scale.
  /// Lanes from `tokens` on are no tokens and add nothing.
  [[gnu::noinline]] void backward(const V* products, const V* squares,
                                  const StreamCoefficients<N, V>& grad, int tokens,
                                  V* grad_products, V* x_factor, V* grad_base, V* grad_scale) {
    V live(T(0));
    for (int t = 0; t < tokens; ++t) live.v[t] = T(1);
    Gradients out{grad_products, grad_base, grad_scale};
    math_.backward(products, squares, grad, live, out, x_factor);
  }

 private:
  struct Gradients {
    V *products, *base, *scales;
    void logit(int row, V grad) const { base[row] += grad; }
    void scale(int group, V term) const { scales[group] += term; }
    void product(int raw, V grad) const { products[raw] = grad; }
  };

  Math math_;
};

}  // namespace lectern
