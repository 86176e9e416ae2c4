// Sinkhorn normalisation of one N x N matrix and its gradient, in registers; the CPU kernel calls
// it with a register of tokens (Lanes), a CUDA thread with one number. Definition:
// core/ops/sinkhorn.h.
//
// The gradient is carried as lambda = dL/dlog(M): a step that divides a line x by d(sum x) gives
//   lambda_x = lambda_y - gate * y * sum(lambda_y),   gate = 0 where the divisor was clamped,
// without a division, so that nothing overflows where entries underflow. The iterates are not kept:
// each step keeps its N divisors and the way back multiplies by them.
#pragma once

#include "core/cpu/vector_math.h"
#include "core/host_device.h"

#include <cmath>

namespace lectern {

/// How published implementations differ (docs/mhc.md).
enum class StreamConvention { paper, megatron, deepseek_v4 };

namespace stream_math {

template <typename T>
LECTERN_HOST_DEVICE inline T maximum(T a, T b) {
  return a > b ? a : b;
}
/// 1 where a > b, else 0.
template <typename T>
LECTERN_HOST_DEVICE inline T is_above(T a, T b) {
  return a > b ? T(1) : T(0);
}
LECTERN_HOST_DEVICE inline float exponential(float x) { return fast_exp(x); }
LECTERN_HOST_DEVICE inline double exponential(double x) { return fast_exp(x); }
LECTERN_HOST_DEVICE inline float hyperbolic_tangent(float x) { return fast_tanh(x); }
LECTERN_HOST_DEVICE inline double hyperbolic_tangent(double x) { return fast_tanh(x); }
LECTERN_HOST_DEVICE inline float square_root(float x) { return std::sqrt(x); }
LECTERN_HOST_DEVICE inline double square_root(double x) { return std::sqrt(x); }

constexpr double kSinkhornEpsilon = 1e-6;

/// Steps (one axis each) of `iterations`: deepseek-v4's softmax is its first row step.
constexpr int sinkhorn_steps(StreamConvention convention, int iterations) {
  return 2 * iterations - (convention == StreamConvention::deepseek_v4 ? 1 : 0);
}
constexpr bool step_is_rows(StreamConvention convention, int step) {
  return (step % 2 == 0) == (convention == StreamConvention::megatron);
}

/// Index of entry j of line i, where lines are rows or columns.
template <int N>
constexpr int line_entry(bool rows, int i, int j) {
  return rows ? i * N + j : j * N + i;
}

/// m <- exp(m - row maximum); deepseek-v4 goes on to softmax + epsilon.
template <int N, typename V>
LECTERN_HOST_DEVICE inline void sinkhorn_start(StreamConvention convention, V* m) {
  LECTERN_UNROLL
  for (int i = 0; i < N; ++i) {
    V* row = m + i * N;
    V top = row[0];
    LECTERN_UNROLL
    for (int j = 1; j < N; ++j) top = maximum(top, row[j]);
    LECTERN_UNROLL
    for (int j = 0; j < N; ++j) row[j] = exponential(row[j] - top);
    if (convention != StreamConvention::deepseek_v4) continue;
    V sum = row[0];
    LECTERN_UNROLL
    for (int j = 1; j < N; ++j) sum += row[j];
    const V inverse = V(1) / sum;
    LECTERN_UNROLL
    for (int j = 0; j < N; ++j) row[j] = row[j] * inverse + V(kSinkhornEpsilon);
  }
}

/// Divides each line by max(its sum, clamp) + add and keeps the N divisors.
template <int N, typename V, typename Divisors>
LECTERN_HOST_DEVICE inline void scale_lines(V* m, bool rows, V clamp, V add, Divisors divisors,
                                            int at) {
  LECTERN_UNROLL
  for (int i = 0; i < N; ++i) {
    V sum = m[line_entry<N>(rows, i, 0)];
    LECTERN_UNROLL
    for (int j = 1; j < N; ++j) sum += m[line_entry<N>(rows, i, j)];
    const V divisor = maximum(sum, clamp) + add;
    divisors[at + i] = divisor;
    const V inverse = V(1) / divisor;
    LECTERN_UNROLL
    for (int j = 0; j < N; ++j) m[line_entry<N>(rows, i, j)] *= inverse;
  }
}

/// The reverse of scale_lines for the matrix and, as said above, for lambda.
template <int N, typename V, typename Divisors>
LECTERN_HOST_DEVICE inline void unscale_lines(V* m, V* lambda, bool rows, V clamp,
                                              Divisors divisors, int at) {
  LECTERN_UNROLL
  for (int i = 0; i < N; ++i) {
    V sum = lambda[line_entry<N>(rows, i, 0)];
    LECTERN_UNROLL
    for (int j = 1; j < N; ++j) sum += lambda[line_entry<N>(rows, i, j)];
    const V divisor = divisors[at + i];
    const V pull = sum * is_above(divisor, clamp);
    LECTERN_UNROLL
    for (int j = 0; j < N; ++j) {
      const int entry = line_entry<N>(rows, i, j);
      lambda[entry] -= m[entry] * pull;
      m[entry] *= divisor;
    }
  }
}

template <typename V>
struct SinkhornRule {
  V clamp, add;
  LECTERN_HOST_DEVICE explicit SinkhornRule(StreamConvention convention)
      : clamp(convention == StreamConvention::megatron ? kSinkhornEpsilon : 0.0),
        add(convention == StreamConvention::deepseek_v4 ? kSinkhornEpsilon : 0.0) {}
};

/// m: logits in, H_res out. `divisors` is an array of N numbers a step, or anything that is indexed
/// like one.
template <int N, typename V, typename Divisors>
LECTERN_HOST_DEVICE inline void sinkhorn_forward(StreamConvention convention, int iterations, V* m,
                                                 Divisors divisors) {
  const SinkhornRule<V> rule(convention);
  sinkhorn_start<N>(convention, m);
  const int steps = sinkhorn_steps(convention, iterations);
  for (int step = 0; step < steps; ++step) {
    // Two calls, so that `rows` is a constant in each and the matrix stays in registers.
    if (step_is_rows(convention, step))
      scale_lines<N>(m, true, rule.clamp, rule.add, divisors, step * N);
    else
      scale_lines<N>(m, false, rule.clamp, rule.add, divisors, step * N);
  }
}

/// From lambda of the starting matrix `m` to the gradient of the logits, in `lambda`. paper: its
/// start exp(l - row maximum) is not undone by a row step, so the maximum has a gradient, shared by
/// the entries that attain it.
template <int N, typename V>
LECTERN_HOST_DEVICE inline void sinkhorn_start_gradient(StreamConvention convention,
                                                        const V* logits, const V* m, V* lambda) {
  LECTERN_UNROLL
  for (int i = 0; i < N; ++i) {
    const V *row = logits + i * N, *value = m + i * N;
    V* out = lambda + i * N;
    if (convention == StreamConvention::deepseek_v4) {
      V p[N], sum(0);
      LECTERN_UNROLL
      for (int j = 0; j < N; ++j) {
        p[j] = value[j] - V(kSinkhornEpsilon);
        out[j] = out[j] * p[j] / value[j];
        sum += out[j];
      }
      LECTERN_UNROLL
      for (int j = 0; j < N; ++j) out[j] -= p[j] * sum;
    } else if (convention == StreamConvention::paper) {
      V top = row[0], sum = out[0], ties(0);
      LECTERN_UNROLL
      for (int j = 1; j < N; ++j) {
        top = maximum(top, row[j]);
        sum += out[j];
      }
      V is_top[N];
      LECTERN_UNROLL
      for (int j = 0; j < N; ++j) {
        is_top[j] = V(1) - is_above(top, row[j]);
        ties += is_top[j];
      }
      LECTERN_UNROLL
      for (int j = 0; j < N; ++j) out[j] -= is_top[j] / ties * sum;
    }
  }
}

/// m: H_res in, destroyed; grad: dL/dH_res in, dL/dlogits out; `divisors` from the forward.
template <int N, typename V, typename Divisors>
LECTERN_HOST_DEVICE inline void sinkhorn_backward(StreamConvention convention, int iterations,
                                                  const V* logits, V* m, Divisors divisors,
                                                  V* grad) {
  const SinkhornRule<V> rule(convention);
  LECTERN_UNROLL
  for (int k = 0; k < N * N; ++k) grad[k] *= m[k];
  for (int step = sinkhorn_steps(convention, iterations) - 1; step >= 0; --step) {
    if (step_is_rows(convention, step))
      unscale_lines<N>(m, grad, true, rule.clamp, divisors, step * N);
    else
      unscale_lines<N>(m, grad, false, rule.clamp, divisors, step * N);
  }
  sinkhorn_start_gradient<N>(convention, logits, m, grad);
}

// paper, in logarithms: exact where a column underflows, that is where column_floor() is low. The
// other conventions define what happens there through their epsilons.

/// Largest l - (maximum of its row) of the column where that is smallest.
template <int N, typename V>
LECTERN_HOST_DEVICE inline V column_floor(const V* logits) {
  V top[N], depth(0);
  for (int i = 0; i < N; ++i) {
    top[i] = logits[i * N];
    for (int j = 1; j < N; ++j) top[i] = maximum(top[i], logits[i * N + j]);
  }
  for (int j = 0; j < N; ++j) {
    V best = logits[j] - top[0];
    for (int i = 1; i < N; ++i) best = maximum(best, logits[i * N + j] - top[i]);
    depth = maximum(depth, -best);
  }
  return -depth;
}
/// Below this floor the sum of a column loses digits or underflows.
template <typename T>
constexpr T kColumnFloor = sizeof(T) == sizeof(float) ? T(-40) : T(-300);

/// m: logits in, log H_res out; `shifts` as `divisors` above.
template <int N, typename T, typename Shifts>
LECTERN_HOST_DEVICE inline void log_sinkhorn_forward(int iterations, T* m, Shifts shifts) {
  for (int i = 0; i < N; ++i) {
    T top = m[i * N];
    for (int j = 1; j < N; ++j) top = maximum(top, m[i * N + j]);
    for (int j = 0; j < N; ++j) m[i * N + j] -= top;
  }
  for (int step = 0; step < 2 * iterations; ++step) {
    const bool rows = step_is_rows(StreamConvention::paper, step);
    for (int i = 0; i < N; ++i) {
      T top = m[line_entry<N>(rows, i, 0)], sum = 0;
      for (int j = 1; j < N; ++j) top = maximum(top, m[line_entry<N>(rows, i, j)]);
      for (int j = 0; j < N; ++j) sum += exponential(m[line_entry<N>(rows, i, j)] - top);
      const T shift = top + std::log(sum);
      for (int j = 0; j < N; ++j) m[line_entry<N>(rows, i, j)] -= shift;
      shifts[step * N + i] = shift;
    }
  }
}

/// m: log H_res in, destroyed; grad as in sinkhorn_backward.
template <int N, typename T, typename Shifts>
LECTERN_HOST_DEVICE inline void log_sinkhorn_backward(int iterations, const T* logits, T* m,
                                                      Shifts shifts, T* grad) {
  for (int k = 0; k < N * N; ++k) grad[k] *= exponential(m[k]);
  for (int step = 2 * iterations - 1; step >= 0; --step) {
    const bool rows = step_is_rows(StreamConvention::paper, step);
    for (int i = 0; i < N; ++i) {
      const T shift = shifts[step * N + i];
      T sum = 0;
      for (int j = 0; j < N; ++j) sum += grad[line_entry<N>(rows, i, j)];
      for (int j = 0; j < N; ++j) {
        const int at = line_entry<N>(rows, i, j);
        grad[at] -= exponential(m[at]) * sum;
        m[at] += shift;
      }
    }
  }
  sinkhorn_start_gradient<N>(StreamConvention::paper, logits, m, grad);
}

}  // namespace stream_math
}  // namespace lectern
