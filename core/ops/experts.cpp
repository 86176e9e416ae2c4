#include "core/ops/experts.h"

#include "core/gemm.h"
#include "core/mixed_gemm.h"
#include "core/parallel.h"
#include "core/vector_math.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace lectern {
namespace {

/// Multiply-adds, and elements moved or activated, that are worth a thread of their own.
constexpr std::int64_t kProductGrain = 300000, kElementGrain = 1 << 14;

std::int64_t row_grain(std::int64_t width) {
  return std::max<std::int64_t>(1, kElementGrain / std::max<std::int64_t>(width, 1));
}

struct Sizes {
  std::int64_t tokens, width, top_k, experts, inner, pairs;

  explicit Sizes(const ExpertsInput& input)
      : tokens(input.x.dim(0)),
        width(input.x.dim(1)),
        top_k(input.indices.dim(1)),
        experts(input.down.dim(0)),
        inner(input.down.dim(2)),
        pairs(tokens * top_k) {}
};

/// Calls f(expert, first place, rows) for the experts with tokens: experts side by side, each on
/// one thread, when there are enough of them and of work; else one after the other, where each
/// product decides for itself.
template <typename F>
void for_each_active(const ExpertOrder& order, const Sizes& sizes, F&& f) {
  const auto count = static_cast<std::int64_t>(order.active.size());
  const auto run = [&](std::int64_t i) {
    const std::int64_t expert = order.active[static_cast<std::size_t>(i)];
    const std::int64_t first = order.begin[static_cast<std::size_t>(expert)];
    f(expert, first, order.begin[static_cast<std::size_t>(expert) + 1] - first);
  };
  const std::int64_t products = 3 * sizes.pairs * sizes.width * sizes.inner;
  if (count >= thread_count() && products >= 2 * kProductGrain)
    parallel_tasks(count, run);
  else
    for (std::int64_t i = 0; i < count; ++i) run(i);
}

/// out[r] = source[token of the pair at place first + r]
template <typename T>
void gather_rows(const ExpertOrder& order, const Sizes& sizes, std::int64_t first,
                 std::int64_t rows, const T* source, T* out) {
  parallel_for(rows, row_grain(sizes.width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t token = order.pair_at[static_cast<std::size_t>(first + r)] / sizes.top_k;
      std::copy_n(source + token * sizes.width, sizes.width, out + r * sizes.width);
    }
  });
}

/// out[n] = sum over k of weights[n, k] * rows[place of (n, k)]; null weights are ones.
template <typename T>
void combine_rows(const ExpertOrder& order, const Sizes& sizes, const T* rows, const T* weights,
                  T* out) {
  const std::int64_t width = sizes.width;
  parallel_for(sizes.tokens, row_grain(width * sizes.top_k),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t n = begin; n < end; ++n) {
                   T* sum = out + n * width;
                   std::fill_n(sum, width, T{0});
                   for (std::int64_t pair = n * sizes.top_k; pair < (n + 1) * sizes.top_k; ++pair) {
                     const T* row = rows + order.place_of[static_cast<std::size_t>(pair)] * width;
                     const T weight = weights == nullptr ? T{1} : weights[pair];
#pragma omp simd
                     for (std::int64_t c = 0; c < width; ++c) sum[c] += weight * row[c];
                   }
                 }
               });
}

/// h[r] = silu(gate[r]) * up[r]; h may lie on gate (then ldh = 2 * inner).
template <typename T>
void activate(const T* gate_up, std::int64_t rows, std::int64_t inner, T* h, std::int64_t ldh) {
  parallel_for(rows, row_grain(4 * inner), [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const T* gate = gate_up + r * 2 * inner;
      const T* up = gate + inner;
      T* out = h + r * ldh;
#pragma omp simd
      for (std::int64_t i = 0; i < inner; ++i) out[i] = gate[i] * fast_sigmoid(gate[i]) * up[i];
    }
  });
}

/// y[m, n] = x[m, k] w[n, k]^T, the weight in the dtype of x or in bf16.
template <typename T>
void multiply(const MixedGemmArgs& args, const T* x, const T* w, T* y) {
  gemm<T>({.transpose_b = true,
           .m = args.m,
           .n = args.n,
           .k = args.k,
           .lda = args.ldx,
           .ldb = args.ldw,
           .ldc = args.ldy},
          x, w, y);
}
void multiply(const MixedGemmArgs& args, const float* x, const BFloat16* w, float* y) {
  mixed_gemm(args, x, w, nullptr, y);
}

template <typename T, typename Weight>
ExpertsResult forward_typed(const ExpertsInput& input, bool keep) {
  const Sizes s(input);
  ExpertsResult result;
  result.order = sort_by_expert(input.indices, s.experts);
  result.out = Tensor::empty_like(input.x);
  const DType dtype = input.x.dtype();
  const Tensor gate_up_output = Tensor::empty({s.pairs, 2 * s.inner}, dtype);
  const Tensor hidden = keep ? Tensor::empty({s.pairs, s.inner}, dtype) : gate_up_output;
  // Holds the gathered inputs of an expert, then its outputs.
  const Tensor rows_buffer = Tensor::empty({s.pairs, s.width}, dtype);
  const T* x = input.x.data<T>();
  const Weight *gate_up = input.gate_up.data<Weight>(), *down = input.down.data<Weight>();
  T *middle = gate_up_output.data<T>(), *h = hidden.data<T>(), *buffer = rows_buffer.data<T>();
  const std::int64_t ldh = keep ? s.inner : 2 * s.inner;
  for_each_active(result.order, s, [&](std::int64_t expert, std::int64_t first, std::int64_t rows) {
    T* part = buffer + first * s.width;
    gather_rows(result.order, s, first, rows, x, part);
    multiply({.m = rows,
              .n = 2 * s.inner,
              .k = s.width,
              .ldx = s.width,
              .ldw = s.width,
              .ldy = 2 * s.inner},
             part, gate_up + expert * 2 * s.inner * s.width, middle + first * 2 * s.inner);
    activate(middle + first * 2 * s.inner, rows, s.inner, h + first * ldh, ldh);
    multiply({.m = rows, .n = s.width, .k = s.inner, .ldx = ldh, .ldw = s.inner, .ldy = s.width},
             h + first * ldh, down + expert * s.width * s.inner, part);
  });
  combine_rows(result.order, s, buffer, input.weights.data<T>(), result.out.data<T>());
  if (keep) result.gate_up_output = gate_up_output;
  return result;
}

/// What backward works on; the pointers of gradients that are not wanted are null.
template <typename T>
struct BackwardPointers {
  const T *x, *weights, *gate_up, *down, *gate_up_output, *grad_out;
  T *rows, *x_rows, *h, *grad_middle;  // scratch by place
  T *grad_weights, *grad_gate_up, *grad_down;
  bool want_x;
};

/// From grad_h = down^T grad_out (unweighted) in `h`: the gradients of the weights and of the
/// gate_up output; leaves weight * silu(gate) * up, the right factor of grad_down, in `h`.
template <typename T>
void activation_backward(const BackwardPointers<T>& p, const ExpertOrder& order, std::int64_t inner,
                         std::int64_t first, std::int64_t rows) {
  parallel_for(rows, row_grain(4 * inner), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t place = first + begin; place < first + end; ++place) {
      const std::int64_t pair = order.pair_at[static_cast<std::size_t>(place)];
      const T weight = p.weights[pair];
      const T *gate = p.gate_up_output + place * 2 * inner, *up = gate + inner;
      T* h = p.h + place * inner;
      T *grad_gate = p.grad_middle + place * 2 * inner, *grad_up = grad_gate + inner;
      T dot = 0;
#pragma omp simd reduction(+ : dot)
      for (std::int64_t i = 0; i < inner; ++i) {
        const T s = fast_sigmoid(gate[i]);
        const T silu = gate[i] * s, grad = h[i];
        dot += grad * silu * up[i];
        grad_gate[i] = weight * grad * up[i] * s * (T{1} + gate[i] * (T{1} - s));
        grad_up[i] = weight * grad * silu;
        h[i] = weight * silu * up[i];
      }
      if (p.grad_weights != nullptr) p.grad_weights[pair] = dot;
    }
  });
}

template <typename T>
void expert_backward(const BackwardPointers<T>& p, const ExpertOrder& order, const Sizes& s,
                     std::int64_t expert, std::int64_t first, std::int64_t rows) {
  const std::int64_t matrix = s.width * s.inner;
  T* grad_rows = p.rows + first * s.width;
  T* h = p.h + first * s.inner;
  T* grad_middle = p.grad_middle + first * 2 * s.inner;
  gather_rows(order, s, first, rows, p.grad_out, grad_rows);
  gemm<T>({.m = rows, .n = s.inner, .k = s.width, .lda = s.width, .ldb = s.inner, .ldc = s.inner},
          grad_rows, p.down + expert * matrix, h);
  activation_backward(p, order, s.inner, first, rows);
  if (p.grad_down != nullptr)
    gemm<T>({.transpose_a = true,
             .m = s.width,
             .n = s.inner,
             .k = rows,
             .lda = s.width,
             .ldb = s.inner,
             .ldc = s.inner},
            grad_rows, h, p.grad_down + expert * matrix);
  if (p.grad_gate_up != nullptr) {
    T* x_rows = p.x_rows + first * s.width;
    gather_rows(order, s, first, rows, p.x, x_rows);
    gemm<T>({.transpose_a = true,
             .m = 2 * s.inner,
             .n = s.width,
             .k = rows,
             .lda = 2 * s.inner,
             .ldb = s.width,
             .ldc = s.width},
            grad_middle, x_rows, p.grad_gate_up + expert * 2 * matrix);
  }
  if (p.want_x)  // grad_rows has been read for the last time
    gemm<T>({.m = rows,
             .n = s.width,
             .k = 2 * s.inner,
             .lda = 2 * s.inner,
             .ldb = s.width,
             .ldc = s.width},
            grad_middle, p.gate_up + expert * 2 * matrix, grad_rows);
}

/// Zeros in the gradients of experts without tokens.
template <typename T>
void clear_idle(const ExpertOrder& order, std::int64_t elements, T* grad) {
  if (grad == nullptr) return;
  parallel_tasks(static_cast<std::int64_t>(order.begin.size()) - 1, [&](std::int64_t e) {
    const auto expert = static_cast<std::size_t>(e);
    if (order.begin[expert] == order.begin[expert + 1])
      std::fill_n(grad + e * elements, elements, T{0});
  });
}

template <typename T>
ExpertsGradients backward_typed(const Tensor& grad_out, const ExpertsInput& input,
                                const ExpertsResult& forward, const ExpertsWanted& wanted) {
  const Sizes s(input);
  const DType dtype = input.x.dtype();
  const ExpertOrder& order = forward.order;
  ExpertsGradients out;
  const auto wanted_like = [](bool is_wanted, const Tensor& like) {
    return is_wanted ? Tensor::empty_like(like) : Tensor();
  };
  out.x = wanted_like(wanted.x, input.x);
  out.weights = wanted_like(wanted.weights, input.weights);
  out.gate_up = wanted_like(wanted.gate_up, input.gate_up);
  out.down = wanted_like(wanted.down, input.down);
  const Tensor rows = Tensor::empty({s.pairs, s.width}, dtype);
  const Tensor x_rows = Tensor::empty({wanted.gate_up ? s.pairs : 0, s.width}, dtype);
  const Tensor h = Tensor::empty({s.pairs, s.inner}, dtype);
  const Tensor grad_middle = Tensor::empty({s.pairs, 2 * s.inner}, dtype);
  const auto pointer = [](const Tensor& tensor) {
    return tensor.defined() ? tensor.data<T>() : nullptr;
  };
  const BackwardPointers<T> p = {.x = pointer(input.x),
                                 .weights = pointer(input.weights),
                                 .gate_up = pointer(input.gate_up),
                                 .down = pointer(input.down),
                                 .gate_up_output = pointer(forward.gate_up_output),
                                 .grad_out = pointer(grad_out),
                                 .rows = pointer(rows),
                                 .x_rows = pointer(x_rows),
                                 .h = pointer(h),
                                 .grad_middle = pointer(grad_middle),
                                 .grad_weights = pointer(out.weights),
                                 .grad_gate_up = pointer(out.gate_up),
                                 .grad_down = pointer(out.down),
                                 .want_x = wanted.x};
  clear_idle(order, 2 * s.inner * s.width, p.grad_gate_up);
  clear_idle(order, s.inner * s.width, p.grad_down);
  for_each_active(order, s, [&](std::int64_t expert, std::int64_t first, std::int64_t count) {
    expert_backward(p, order, s, expert, first, count);
  });
  if (wanted.x) combine_rows<T>(order, s, p.rows, nullptr, out.x.data<T>());
  return out;
}

ExpertsResult forward_cpu(const ExpertsInput& input, bool keep) {
  if (input.gate_up.dtype() == DType::bf16) return forward_typed<float, BFloat16>(input, keep);
  return dispatch_floating(input.x.dtype(), "experts",
                           [&]<typename T>() { return forward_typed<T, T>(input, keep); });
}

ExpertsGradients backward_cpu(const Tensor& grad_out, const ExpertsInput& input,
                              const ExpertsResult& forward, const ExpertsWanted& wanted) {
  return dispatch_floating(input.x.dtype(), "experts", [&]<typename T>() {
    return backward_typed<T>(grad_out, input, forward, wanted);
  });
}

void check_input(const ExpertsInput& input) {
  constexpr std::string_view kName = "experts";
  check_ndim(input.x, 2, kName, "x");
  check_ndim(input.indices, 2, kName, "indices");
  check_ndim(input.down, 3, kName, "down");
  const std::int64_t tokens = input.x.dim(0), width = input.x.dim(1);
  const std::int64_t experts = input.down.dim(0), inner = input.down.dim(2);
  check_shape(input.indices, {tokens, input.indices.dim(1)}, kName, "indices");
  check_shape(input.weights, input.indices.shape(), kName, "weights");
  check_shape(input.down, {experts, width, inner}, kName, "down");
  check_shape(input.gate_up, {experts, 2 * inner, width}, kName, "gate_up");
  check_dtype(input.indices, DType::i32, kName, "indices");
  check_dtype(input.weights, input.x.dtype(), kName, "weights");
  const bool is_mixed = input.x.dtype() == DType::f32 && input.gate_up.dtype() == DType::bf16;
  const DType weight = is_mixed ? DType::bf16 : input.x.dtype();
  check_dtype(input.gate_up, weight, kName, "gate_up");
  check_dtype(input.down, weight, kName, "down");
  check_contiguous(input.x, kName, "x");
  check_contiguous(input.weights, kName, "weights");
  check_contiguous(input.indices, kName, "indices");
  check_contiguous(input.gate_up, kName, "gate_up");
  check_contiguous(input.down, kName, "down");
}

}  // namespace

KernelTable<ExpertsKernels>& experts_table() {
  static KernelTable<ExpertsKernels> instance("experts", {forward_cpu, backward_cpu});
  return instance;
}

ExpertOrder sort_by_expert(const Tensor& indices, std::int64_t experts) {
  check_dtype(indices, DType::i32, "experts", "indices");
  check_contiguous(indices, "experts", "indices");
  const std::int64_t pairs = indices.numel();
  if (pairs > std::numeric_limits<std::int32_t>::max())
    fail<ShapeError>(fmt::format("experts: at most 2^31 - 1 pairs, got {}", indices.describe()));
  const std::int32_t* index = indices.data<std::int32_t>();
  ExpertOrder order;
  order.begin.assign(static_cast<std::size_t>(experts) + 1, 0);
  for (std::int64_t i = 0; i < pairs; ++i) {
    if (index[i] < 0 || index[i] >= experts)
      fail<ShapeError>(fmt::format("experts: indices must be 0..{}, got {} at position {}",
                                   experts - 1, index[i], i));
    ++order.begin[static_cast<std::size_t>(index[i]) + 1];
  }
  for (std::int64_t e = 0; e < experts; ++e)
    if (order.begin[static_cast<std::size_t>(e) + 1] > 0)
      order.active.push_back(static_cast<std::int32_t>(e));
  std::stable_sort(order.active.begin(), order.active.end(), [&](std::int32_t a, std::int32_t b) {
    return order.begin[static_cast<std::size_t>(a) + 1] >
           order.begin[static_cast<std::size_t>(b) + 1];
  });
  std::partial_sum(order.begin.begin(), order.begin.end(), order.begin.begin());
  order.pair_at.resize(static_cast<std::size_t>(pairs));
  order.place_of.resize(static_cast<std::size_t>(pairs));
  std::vector<std::int64_t> next(order.begin.begin(), order.begin.end() - 1);
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    const std::int64_t place = next[static_cast<std::size_t>(index[pair])]++;
    order.pair_at[static_cast<std::size_t>(place)] = static_cast<std::int32_t>(pair);
    order.place_of[static_cast<std::size_t>(pair)] = static_cast<std::int32_t>(place);
  }
  return order;
}

ExpertsResult experts_forward(const ExpertsInput& input, bool keep) {
  check_input(input);
  return experts_table().at(input.x.device()).forward(input, keep);
}

ExpertsGradients experts_backward(const Tensor& grad_out, const ExpertsInput& input,
                                  const ExpertsResult& forward, const ExpertsWanted& wanted) {
  check_shape(grad_out, input.x.shape(), "experts_backward", "grad_out");
  check_dtype(grad_out, input.x.dtype(), "experts_backward", "grad_out");
  check_dtype(input.gate_up, input.x.dtype(), "experts_backward", "gate_up");
  if (!forward.gate_up_output.defined())
    fail<Error>(
        "experts_backward: the forward pass must keep its gate_up output, got keep = false");
  return experts_table()
      .at(input.x.device())
      .backward(grad_out.contiguous(), input, forward, wanted);
}

}  // namespace lectern
