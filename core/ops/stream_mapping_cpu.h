// Coefficients of a register of tokens, forward and backward (private to stream_read_cpu.cpp).
#pragma once

#include "core/ops/sinkhorn_cpu.h"
#include "core/ops/stream_read.h"

namespace lectern {

/// pre, post and mix of Lanes::kCount tokens, and their gradients on the way back.
template <int N, typename T>
struct StreamCoefficients {
  Lanes<T> pre[N], post[N], mix[N * N];
};

template <int N, typename T>
class MappingBlock {
 public:
  static constexpr int kMaxRows =
      2 * N + (N <= stream_math::kMaxExactStreams && stream_math::factorial(N) > N * N
                   ? stream_math::factorial(N)
                   : N * N);
  using V = Lanes<T>;

  /// scale [3] and base [m] as in stream_read.h; `width` is C.
  MappingBlock(const StreamReadArgs& args, const T* scale, const T* base, std::int64_t width)
      : args_(args),
        rows_(stream_math::mapping_rows(args.mapping, N)),
        norms_(stream_math::norm_count(args.mapping, N)),
        count_(static_cast<T>(args.mapping == StreamMapping::hc ? width : width * N)),
        scale_(scale),
        base_(base),
        sinkhorn_(args.convention, static_cast<int>(args.iterations)) {}

  int rows() const { return rows_; }
  int norms() const { return norms_; }

  [[gnu::noinline]] void forward(const V* products, const V* squares,
                                 StreamCoefficients<N, T>& out) {
    make_logits(products, squares);
    make_gates(out);
    if (args_.mapping == StreamMapping::head) return;
    V res[N * N];
    make_res(res);
    for (int i = 0; i < N; ++i)
      for (int j = 0; j < N; ++j) out.mix[i * N + j] = res[at(i, j)];
  }

  /// After forward() of the same tokens. grad: of pre, post and mix. Writes the gradients of the
  /// raw products and the factor of x that comes from the norms; adds to grad_base and grad_scale.
  /// Lanes from `tokens` on are no tokens and add nothing.
  [[gnu::noinline]] void backward(const V* products, const V* squares,
                                  const StreamCoefficients<N, T>& grad, int tokens,
                                  V* grad_products, V* x_factor, V* grad_base, V* grad_scale) {
    V grad_logits[kMaxRows];
    gate_gradients(grad, grad_logits);
    if (args_.mapping != StreamMapping::head) res_gradients(grad, grad_logits);
    V live(T(0));
    for (int t = 0; t < tokens; ++t) live.v[t] = T(1);
    V grad_inverse[N];
    for (int n = 0; n < norms_; ++n) grad_inverse[n] = V(T(0));
    const bool bounded = args_.mapping == StreamMapping::hc;
    for (int row = 0; row < rows_; ++row) {
      const int raw = stream_math::raw_product(args_.mapping, N, row);
      const int norm = stream_math::norm_of_row(args_.mapping, N, row), group = group_of(row);
      const V grad_logit = grad_logits[row] * live;
      grad_base[row] += grad_logit;
      grad_scale[group] += grad_logit * activated_[row];
      V grad_h = grad_logit * V(scale_[group]);
      if (bounded) grad_h *= V(T(1)) - activated_[row] * activated_[row];
      grad_products[raw] = grad_h * inverse_[norm];
      grad_inverse[norm] += grad_h * products[raw];
    }
    for (int n = 0; n < norms_; ++n)
      x_factor[n] = stream_math::inverse_rms_gradient(args_.convention, squares[n], count_,
                                                      inverse_[n], grad_inverse[n]);
  }

 private:
  int group_of(int row) const {
    return args_.mapping == StreamMapping::head ? 0 : stream_math::group_of_row(N, row);
  }
  /// Where entry (i, j) of mix stands in res.
  int at(int i, int j) const {
    const bool transposed =
        args_.mapping == StreamMapping::mhc && args_.convention == StreamConvention::deepseek_v4;
    return transposed ? j * N + i : i * N + j;
  }

  void make_logits(const V* products, const V* squares) {
    for (int n = 0; n < norms_; ++n)
      inverse_[n] = stream_math::inverse_rms(args_.convention, squares[n], count_);
    for (int row = 0; row < rows_; ++row) {
      const V h = products[stream_math::raw_product(args_.mapping, N, row)] *
                  inverse_[stream_math::norm_of_row(args_.mapping, N, row)];
      activated_[row] = args_.mapping == StreamMapping::hc ? hyperbolic_tangent(h) : h;
      logits_[row] = V(scale_[group_of(row)]) * activated_[row] + V(base_[row]);
    }
  }

  void make_gates(StreamCoefficients<N, T>& out) {
    const bool direct = args_.mapping == StreamMapping::hc;
    const V epsilon(static_cast<T>(stream_math::pre_epsilon(args_.mapping, args_.convention)));
    for (int i = 0; i < N; ++i) {
      gate_[i] = direct ? logits_[i] : stream_math::sigmoid(logits_[i]);
      out.pre[i] = !args_.pre ? V(T(1) / T(N)) : direct ? gate_[i] : gate_[i] + epsilon;
      if (args_.mapping == StreamMapping::head) continue;
      gate_[N + i] = direct ? logits_[N + i] : stream_math::sigmoid(logits_[N + i]);
      out.post[i] = !args_.post ? V(T(1)) : direct ? gate_[N + i] : V(T(2)) * gate_[N + i];
    }
  }

  void make_res(V* res) {
    const V* logits = logits_ + 2 * N;
    if (!args_.res) {
      for (int k = 0; k < N * N; ++k) res[k] = V(k % (N + 1) == 0 ? T(1) : T(0));
    } else if (args_.mapping == StreamMapping::hc) {
      std::copy_n(logits, N * N, res);
    } else if (args_.mapping == StreamMapping::mhc) {
      sinkhorn_.forward(logits, res);
      std::copy_n(res, N * N, weights_);
    } else if constexpr (N <= stream_math::kMaxExactStreams) {
      std::copy_n(logits, stream_math::factorial(N), weights_);
      stream_math::permutation_mix<N>(weights_, res);
    }
  }

  void gate_gradients(const StreamCoefficients<N, T>& grad, V* grad_logits) const {
    const bool direct = args_.mapping == StreamMapping::hc;
    const auto through = [&](int row, V g, T factor) {
      return direct ? g : V(factor) * g * gate_[row] * (V(T(1)) - gate_[row]);
    };
    for (int i = 0; i < N; ++i) {
      grad_logits[i] = args_.pre ? through(i, grad.pre[i], T(1)) : V(T(0));
      if (args_.mapping == StreamMapping::head) continue;
      grad_logits[N + i] = args_.post ? through(N + i, grad.post[i], T(2)) : V(T(0));
    }
  }

  void res_gradients(const StreamCoefficients<N, T>& grad, V* grad_logits) {
    V* out = grad_logits + 2 * N;
    V grad_res[N * N];
    for (int i = 0; i < N; ++i)
      for (int j = 0; j < N; ++j) grad_res[at(i, j)] = grad.mix[i * N + j];
    if (!args_.res) {
      for (int row = 2 * N; row < rows_; ++row) grad_logits[row] = V(T(0));
    } else if (args_.mapping == StreamMapping::hc) {
      std::copy_n(grad_res, N * N, out);
    } else if (args_.mapping == StreamMapping::mhc) {
      sinkhorn_.backward(logits_ + 2 * N, weights_, grad_res);
      std::copy_n(grad_res, N * N, out);
    } else if constexpr (N <= stream_math::kMaxExactStreams) {
      stream_math::permutation_mix_gradient<N>(weights_, grad_res, out);
    }
  }

  StreamReadArgs args_;
  int rows_, norms_;
  V count_;
  const T *scale_, *base_;
  SinkhornBlock<N, T> sinkhorn_;
  // Of the tokens of the last forward().
  V inverse_[N], activated_[kMaxRows], logits_[kMaxRows], gate_[2 * N], weights_[kMaxRows];
};

}  // namespace lectern
