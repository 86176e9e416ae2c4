// stream_read: what a sub-layer takes from n residual streams, in one pass over them: the RMS norm,
// the projection, the mappings and the pre-mix. The passes that write the streams: stream_write.h.
//
//   v      = vec(x) / rms(vec(x))                        over n C numbers; hc: each stream, over C
//   h      = v fn^T                                      rows pre | post | res (row-major)
//   mhc    pre = sigmoid(l) (+ 1e-6), post = 2 sigmoid(l), res = Sinkhorn(l)    l = scale h + base
//   exact  pre, post as mhc, res = sum_k softmax(l)_k P_k over the n! permutation matrices, n <= 4
//   hc     pre, post, res = scale tanh(h) + base
//   head   pre = sigmoid(l) + 1e-6, and nothing else
//   input  = sum_i pre_i x_i
//   mix    = res, or its transpose in the convention deepseek-v4 (mhc): out_i = sum_j mix_ij x_j
//
// x         [..., n, C]  f32 or f64 (CUDA: f32), n = 1..8
// fn        [m, n C], m = 2n + n^2 (exact: 2n + n!; head: n); hc: [2 + n, C]
// base      [m] (hc: [2n + n^2]); scale [3] = pre, post, res (head: [1])
// input     [..., C]
// pre, post [..., n]; mix [..., n, n]   (post and mix undefined for head)
// products, squares: raw products and sums of squares, kept for backward
//
// rms by convention: 1/rms = rsqrt(mean + 1e-6), megatron 1 / (rms + 1e-6). A mapping switched off
// is constant: pre 1/n, post 1, mix the identity. Everything accumulates in the dtype of x.
//
// Backward takes the gradient of `input`, of `post` and of the *mixed streams* sum_j mix_ij x_j
// (stream_write's incoming gradient as it is), and does the rest in one pass as well: it forms the
// gradients of pre and mix, recomputes the coefficients and Sinkhorn's iterates from `products`,
// and writes grad_x complete, residual path included. Parameter gradients are summed over fixed
// chunks of tokens, so that they do not depend on the number of threads. Source: mHC, arXiv
// 2512.24880, eq. 7-9, 14-19; HC, arXiv 2409.19606, eq. 5; arXiv 2601.05732.
#pragma once

#include "core/kernel_table.h"
#include "core/ops/sinkhorn.h"
#include "core/ops/stream_mapping_math.h"
#include "core/tensor.h"

namespace lectern {

struct StreamReadArgs {
  StreamMapping mapping = StreamMapping::mhc;
  StreamConvention convention = StreamConvention::deepseek_v4;
  std::int64_t iterations = 20;              ///< of Sinkhorn, 1 to 1000
  bool pre = true, post = true, res = true;  ///< false: the constant

  StreamMappingRule rule() const { return {mapping, convention, pre, post, res}; }
};

struct StreamParameters {
  Tensor fn, base, scale;
};

struct StreamReadOutput {
  Tensor input, pre, post, mix;
  Tensor products, squares;
};

/// Undefined where not needed. `mixed` and `post` are undefined for head.
struct StreamReadGradients {
  Tensor x, fn, base, scale;
};
struct StreamReadNeeds {
  bool x = true, parameters = true;
};

/// Throws ShapeError, DTypeError or ConfigError naming the tensor or field.
StreamReadOutput stream_read(const Tensor& x, const StreamParameters& parameters,
                             const StreamReadArgs& args);

/// grad_mixed [..., n, C] and grad_post [..., n] may be undefined: zero. `forward` needs only
/// products and squares.
StreamReadGradients stream_read_backward(const Tensor& grad_input, const Tensor& grad_mixed,
                                         const Tensor& grad_post, const Tensor& x,
                                         const StreamParameters& parameters,
                                         const StreamReadOutput& forward,
                                         const StreamReadArgs& args, StreamReadNeeds needs = {});

/// Shapes of the parameters for n streams of width C. Throws ConfigError when n is not 1..8 (exact:
/// 1..4).
struct StreamParameterShapes {
  Shape fn, base, scale;
};
StreamParameterShapes stream_parameter_shapes(StreamMapping mapping, std::int64_t streams,
                                              std::int64_t width);

struct StreamReadKernels {
  void (*forward)(const Tensor& x, const StreamParameters& parameters, const StreamReadArgs& args,
                  const StreamReadOutput& result);
  void (*backward)(const Tensor& grad_input, const Tensor& grad_mixed, const Tensor& grad_post,
                   const Tensor& x, const StreamParameters& parameters,
                   const StreamReadOutput& forward, const StreamReadArgs& args,
                   const StreamReadGradients& result);
};
KernelTable<StreamReadKernels>& stream_read_table();

}  // namespace lectern
