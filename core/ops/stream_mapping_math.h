// Coefficients of one token from the products of its streams with the projection, and back; for a
// number or a register of tokens, as sinkhorn_math.h. Definition: core/ops/stream_read.h.
#pragma once

#include "core/ops/stream_math.h"

namespace lectern {

/// Which mapping, and what a published implementation makes of it.
struct StreamMappingRule {
  StreamMapping mapping;
  StreamConvention convention;
  bool pre, post, res;  ///< false: the constant

  LECTERN_HOST_DEVICE bool is_head() const { return mapping == StreamMapping::head; }
  LECTERN_HOST_DEVICE bool is_direct() const { return mapping == StreamMapping::hc; }
};

template <int N, typename V>
struct StreamCoefficients {
  V pre[N], post[N], mix[N * N];
};

/// V: number or register; T: number; Values: array of T; Sinkhorn: has forward(logits, matrix) and,
/// after it and for the same token, backward(logits, matrix, grad), which destroys the matrix and
/// replaces the gradient of the matrix by that of the logits.
template <int N, typename V, typename T, typename Values, typename Sinkhorn>
class StreamMappingMath {
 public:
  static constexpr int kMaxRows =
      2 * N + (N <= stream_math::kMaxExactStreams && stream_math::factorial(N) > N * N
                   ? stream_math::factorial(N)
                   : N * N);

  /// scale and base as in stream_read.h; `width` is C.
  LECTERN_HOST_DEVICE StreamMappingMath(const StreamMappingRule& rule, Values scale, Values base,
                                        T width, const Sinkhorn& sinkhorn)
      : rule_(rule),
        rows_(stream_math::mapping_rows(rule.mapping, N)),
        norms_(stream_math::norm_count(rule.mapping, N)),
        count_(rule.is_direct() ? width : width * T(N)),
        scale_(scale),
        base_(base),
        sinkhorn_(sinkhorn) {}

  LECTERN_HOST_DEVICE int rows() const { return rows_; }
  LECTERN_HOST_DEVICE int norms() const { return norms_; }

  /// head: only `pre` is written.
  template <typename Numbers>
  LECTERN_HOST_DEVICE void forward(const Numbers& products, const Numbers& squares,
                                   StreamCoefficients<N, V>& out) {
    make_logits(products, squares);
    make_gates(out);
    if (rule_.is_head()) return;
    V res[N * N];
    make_res(res);
    for (int i = 0; i < N; ++i)
      for (int j = 0; j < N; ++j) out.mix[i * N + j] = res[at(i, j)];
  }

  /// After forward() of the same token. grad: of pre, post and mix; `live` is 1, or 0 where a lane
  /// holds no token. Tells `out`, row by row, logit(row, gradient), scale(group, term of its
  /// gradient) and product(raw product, gradient); x_factor[norm] is the factor of x that comes
  /// from the norms.
  template <typename Numbers, typename Out>
  LECTERN_HOST_DEVICE void backward(const Numbers& products, const Numbers& squares,
                                    const StreamCoefficients<N, V>& grad, V live, Out& out,
                                    V* x_factor) {
    V grad_logits[kMaxRows];
    gate_gradients(grad, grad_logits);
    if (!rule_.is_head()) res_gradients(grad, grad_logits);
    V grad_inverse[N];
    for (int n = 0; n < norms_; ++n) grad_inverse[n] = V(T(0));
    for (int row = 0; row < rows_; ++row) {
      const int raw = stream_math::raw_product(rule_.mapping, N, row);
      const int norm = stream_math::norm_of_row(rule_.mapping, N, row), group = group_of(row);
      const V grad_logit = grad_logits[row] * live;
      out.logit(row, grad_logit);
      out.scale(group, grad_logit * activated_[row]);
      V grad_h = grad_logit * V(scale_[group]);
      if (rule_.is_direct()) grad_h *= V(T(1)) - activated_[row] * activated_[row];
      out.product(raw, grad_h * inverse_[norm]);
      grad_inverse[norm] += grad_h * products[raw];
    }
    for (int n = 0; n < norms_; ++n)
      x_factor[n] = stream_math::inverse_rms_gradient(rule_.convention, V(squares[n]), V(count_),
                                                      inverse_[n], grad_inverse[n]);
  }

 private:
  LECTERN_HOST_DEVICE int group_of(int row) const {
    return rule_.is_head() ? 0 : stream_math::group_of_row(N, row);
  }
  /// Where entry (i, j) of mix stands in res.
  LECTERN_HOST_DEVICE int at(int i, int j) const {
    const bool transposed =
        rule_.mapping == StreamMapping::mhc && rule_.convention == StreamConvention::deepseek_v4;
    return transposed ? j * N + i : i * N + j;
  }

  template <typename Numbers>
  LECTERN_HOST_DEVICE void make_logits(const Numbers& products, const Numbers& squares) {
    using namespace stream_math;  // the functions of numbers; those of registers are found anyway
    for (int n = 0; n < norms_; ++n)
      inverse_[n] = inverse_rms(rule_.convention, V(squares[n]), V(count_));
    for (int row = 0; row < rows_; ++row) {
      const V h = products[raw_product(rule_.mapping, N, row)] *
                  inverse_[norm_of_row(rule_.mapping, N, row)];
      activated_[row] = rule_.is_direct() ? hyperbolic_tangent(h) : h;
      logits_[row] = V(scale_[group_of(row)]) * activated_[row] + V(base_[row]);
    }
  }

  LECTERN_HOST_DEVICE void make_gates(StreamCoefficients<N, V>& out) {
    const bool direct = rule_.is_direct();
    const V epsilon(static_cast<T>(stream_math::pre_epsilon(rule_.mapping, rule_.convention)));
    for (int i = 0; i < N; ++i) {
      gate_[i] = direct ? logits_[i] : stream_math::sigmoid(logits_[i]);
      out.pre[i] = !rule_.pre ? V(T(1) / T(N)) : direct ? gate_[i] : gate_[i] + epsilon;
      if (rule_.is_head()) continue;
      gate_[N + i] = direct ? logits_[N + i] : stream_math::sigmoid(logits_[N + i]);
      out.post[i] = !rule_.post ? V(T(1)) : direct ? gate_[N + i] : V(T(2)) * gate_[N + i];
    }
  }

  LECTERN_HOST_DEVICE void make_res(V* res) {
    const V* logits = logits_ + 2 * N;
    if (!rule_.res) {
      for (int k = 0; k < N * N; ++k) res[k] = V(k % (N + 1) == 0 ? T(1) : T(0));
    } else if (rule_.is_direct()) {
      for (int k = 0; k < N * N; ++k) res[k] = logits[k];
    } else if (rule_.mapping == StreamMapping::mhc) {
      sinkhorn_.forward(logits, res);
      for (int k = 0; k < N * N; ++k) weights_[k] = res[k];
    } else if constexpr (N <= stream_math::kMaxExactStreams) {
      for (int k = 0; k < stream_math::factorial(N); ++k) weights_[k] = logits[k];
      stream_math::permutation_mix<N>(weights_, res);
    }
  }

  /// Of row `row` for a gradient of its gate times `factor`.
  LECTERN_HOST_DEVICE V through_gate(int row, V grad, T factor) const {
    return rule_.is_direct() ? grad : V(factor) * grad * gate_[row] * (V(T(1)) - gate_[row]);
  }

  LECTERN_HOST_DEVICE void gate_gradients(const StreamCoefficients<N, V>& grad,
                                          V* grad_logits) const {
    for (int i = 0; i < N; ++i) {
      grad_logits[i] = rule_.pre ? through_gate(i, grad.pre[i], T(1)) : V(T(0));
      if (rule_.is_head()) continue;
      grad_logits[N + i] = rule_.post ? through_gate(N + i, grad.post[i], T(2)) : V(T(0));
    }
  }

  LECTERN_HOST_DEVICE void res_gradients(const StreamCoefficients<N, V>& grad, V* grad_logits) {
    V* out = grad_logits + 2 * N;
    V grad_res[N * N];
    for (int i = 0; i < N; ++i)
      for (int j = 0; j < N; ++j) grad_res[at(i, j)] = grad.mix[i * N + j];
    if (!rule_.res) {
      for (int row = 2 * N; row < rows_; ++row) grad_logits[row] = V(T(0));
    } else if (rule_.is_direct()) {
      for (int k = 0; k < N * N; ++k) out[k] = grad_res[k];
    } else if (rule_.mapping == StreamMapping::mhc) {
      sinkhorn_.backward(logits_ + 2 * N, weights_, grad_res);
      for (int k = 0; k < N * N; ++k) out[k] = grad_res[k];
    } else if constexpr (N <= stream_math::kMaxExactStreams) {
      stream_math::permutation_mix_gradient<N>(weights_, grad_res, out);
    }
  }

  StreamMappingRule rule_;
  int rows_, norms_;
  T count_;
  Values scale_, base_;
  Sinkhorn sinkhorn_;
  // Of the token of the last forward().
  V inverse_[N], activated_[kMaxRows], logits_[kMaxRows], gate_[2 * N], weights_[kMaxRows];
};

}  // namespace lectern
