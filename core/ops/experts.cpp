#include "core/ops/experts.h"

#include "core/convert_math.h"
#include "core/cpu/gemm_bf16.h"
#include "core/cpu/mixed_gemm.h"
#include "core/cpu/vector_math.h"
#include "core/parallel.h"
#include "core/profile.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <type_traits>

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

inline void put(float& to, float value) { to = value; }
inline void put(double& to, double value) { to = value; }
inline void put(BFloat16& to, float value) { to.bits = convert_math::bf16_bits(value); }

template <typename T>
void copy_row(const T* from, std::int64_t count, T* to) {
  std::copy_n(from, count, to);
}
inline void copy_row(const float* from, std::int64_t count, BFloat16* to) {
  convert_math::row_to_bf16(from, count, to);
}

/// out[r] = source[token of the pair at place first + r]
template <typename From, typename To>
void gather_rows(const ExpertOrder& order, const Sizes& sizes, std::int64_t first,
                 std::int64_t rows, const From* source, To* out) {
  parallel_for(rows, row_grain(sizes.width), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t token = order.pair_at[static_cast<std::size_t>(first + r)] / sizes.top_k;
      copy_row(source + token * sizes.width, sizes.width, out + r * sizes.width);
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
template <typename T, typename H>
void activate(const T* gate_up, std::int64_t rows, std::int64_t inner, H* h, std::int64_t ldh) {
  parallel_for(rows, row_grain(4 * inner), [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const T* gate = gate_up + r * 2 * inner;
      const T* up = gate + inner;
      H* out = h + r * ldh;
#pragma omp simd
      for (std::int64_t i = 0; i < inner; ++i) put(out[i], gate[i] * fast_sigmoid(gate[i]) * up[i]);
    }
  });
}

/// A second buffer for the form that a product reads (bf16), or the first one when they are alike.
template <typename T>
Tensor operand_buffer(const Tensor& sums) {
  return sums.dtype() == kDTypeOf<T> ? sums : Tensor::empty(sums.shape(), kDTypeOf<T>);
}

template <typename T, typename Weight>
ExpertsResult forward_typed(const ExpertsInput& input, bool keep) {
  using Sum = SumOf<T>;
  const Sizes s(input);
  ExpertsResult result;
  result.order = sort_by_expert(input.indices, s.experts);
  result.out = Tensor::empty(input.x.shape(), kDTypeOf<Sum>);
  const Tensor gate_up_output = Tensor::empty({s.pairs, 2 * s.inner}, kDTypeOf<Sum>);
  const bool in_place = !keep && std::is_same_v<T, Sum>;
  const Tensor hidden = in_place ? gate_up_output : Tensor::empty({s.pairs, s.inner}, kDTypeOf<T>);
  const std::int64_t ldh = in_place ? 2 * s.inner : s.inner;
  const Tensor outputs = Tensor::empty({s.pairs, s.width}, kDTypeOf<Sum>);
  const Tensor inputs = operand_buffer<T>(outputs);
  const T* x = input.x.data<T>();
  const Weight *gate_up = input.gate_up.data<Weight>(), *down = input.down.data<Weight>();
  T *h = hidden.data<T>(), *in = inputs.data<T>();
  Sum *middle = gate_up_output.data<Sum>(), *out = outputs.data<Sum>();
  for_each_active(result.order, s, [&](std::int64_t expert, std::int64_t first, std::int64_t rows) {
    gather_rows(result.order, s, first, rows, x, in + first * s.width);
    gemm({.transpose_b = true,
          .m = rows,
          .n = 2 * s.inner,
          .k = s.width,
          .lda = s.width,
          .ldb = s.width,
          .ldc = 2 * s.inner},
         in + first * s.width, gate_up + expert * 2 * s.inner * s.width,
         middle + first * 2 * s.inner);
    activate(middle + first * 2 * s.inner, rows, s.inner, h + first * ldh, ldh);
    gemm({.transpose_b = true,
          .m = rows,
          .n = s.width,
          .k = s.inner,
          .lda = ldh,
          .ldb = s.inner,
          .ldc = s.width},
         h + first * ldh, down + expert * s.width * s.inner, out + first * s.width);
  });
  combine_rows(result.order, s, out, input.weights.data<Sum>(), result.out.data<Sum>());
  if (keep) result.gate_up_output = gate_up_output;
  return result;
}

/// What backward works on; the pointers of gradients that are not wanted are null. Scratch is
/// indexed by place; `grad_h` and `h`, and `grad_x_rows` and `grad_rows`, are one unless T is bf16.
template <typename T>
struct BackwardPointers {
  using Sum = SumOf<T>;
  const T *x, *gate_up, *down;
  const Sum *weights, *gate_up_output, *grad_out;
  T *grad_rows, *x_rows, *h, *grad_middle;
  Sum *grad_h, *grad_x_rows;
  Sum *grad_weights, *grad_gate_up, *grad_down;
  bool want_x;
};

/// From grad_h = down^T grad_out (unweighted): the gradients of the weights and of the gate_up
/// output, and weight * silu(gate) * up, the right factor of grad_down, in `h`.
template <typename T>
void activation_backward(const BackwardPointers<T>& p, const ExpertOrder& order, std::int64_t inner,
                         std::int64_t first, std::int64_t rows) {
  using Sum = SumOf<T>;
  parallel_for(rows, row_grain(4 * inner), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t place = first + begin; place < first + end; ++place) {
      const std::int64_t pair = order.pair_at[static_cast<std::size_t>(place)];
      const Sum weight = p.weights[pair];
      const Sum *gate = p.gate_up_output + place * 2 * inner, *up = gate + inner;
      const Sum* grad_h = p.grad_h + place * inner;
      T* h = p.h + place * inner;
      T *grad_gate = p.grad_middle + place * 2 * inner, *grad_up = grad_gate + inner;
      Sum dot = 0;
#pragma omp simd reduction(+ : dot)
      for (std::int64_t i = 0; i < inner; ++i) {
        const Sum s = fast_sigmoid(gate[i]);
        const Sum silu = gate[i] * s, grad = grad_h[i];
        dot += grad * silu * up[i];
        put(grad_gate[i], weight * grad * up[i] * s * (Sum{1} + gate[i] * (Sum{1} - s)));
        put(grad_up[i], weight * grad * silu);
        put(h[i], weight * silu * up[i]);
      }
      if (p.grad_weights != nullptr) p.grad_weights[pair] = dot;
    }
  });
}

template <typename T>
void expert_backward(const BackwardPointers<T>& p, const ExpertOrder& order, const Sizes& s,
                     std::int64_t expert, std::int64_t first, std::int64_t rows) {
  const std::int64_t matrix = s.width * s.inner;
  T *grad_rows = p.grad_rows + first * s.width, *h = p.h + first * s.inner;
  T* grad_middle = p.grad_middle + first * 2 * s.inner;
  gather_rows(order, s, first, rows, p.grad_out, grad_rows);
  gemm({.m = rows, .n = s.inner, .k = s.width, .lda = s.width, .ldb = s.inner, .ldc = s.inner},
       grad_rows, p.down + expert * matrix, p.grad_h + first * s.inner);
  activation_backward(p, order, s.inner, first, rows);
  if (p.grad_down != nullptr)
    gemm({.transpose_a = true,
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
    gemm({.transpose_a = true,
          .m = 2 * s.inner,
          .n = s.width,
          .k = rows,
          .lda = 2 * s.inner,
          .ldb = s.width,
          .ldc = s.width},
         grad_middle, x_rows, p.grad_gate_up + expert * 2 * matrix);
  }
  if (p.want_x)  // grad_rows has been read for the last time
    gemm({.m = rows,
          .n = s.width,
          .k = 2 * s.inner,
          .lda = 2 * s.inner,
          .ldb = s.width,
          .ldc = s.width},
         grad_middle, p.gate_up + expert * 2 * matrix, p.grad_x_rows + first * s.width);
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
  using Sum = SumOf<T>;
  const Sizes s(input);
  const ExpertOrder& order = forward.order;
  ExpertsGradients out;
  const auto wanted_like = [](bool is_wanted, const Tensor& like) {
    return is_wanted ? Tensor::empty(like.shape(), kDTypeOf<Sum>) : Tensor();
  };
  out.x = wanted_like(wanted.x, input.x);
  out.weights = wanted_like(wanted.weights, input.weights);
  out.gate_up = wanted_like(wanted.gate_up, input.gate_up);
  out.down = wanted_like(wanted.down, input.down);
  const Tensor grad_x_rows = Tensor::empty({s.pairs, s.width}, kDTypeOf<Sum>);
  const Tensor grad_rows = operand_buffer<T>(grad_x_rows);
  const Tensor x_rows = Tensor::empty({wanted.gate_up ? s.pairs : 0, s.width}, kDTypeOf<T>);
  const Tensor grad_h = Tensor::empty({s.pairs, s.inner}, kDTypeOf<Sum>);
  const Tensor h = operand_buffer<T>(grad_h);
  const Tensor grad_middle = Tensor::empty({s.pairs, 2 * s.inner}, kDTypeOf<T>);
  const auto sums = [](const Tensor& tensor) {
    return tensor.defined() ? tensor.data<Sum>() : nullptr;
  };
  const BackwardPointers<T> p = {.x = input.x.data<T>(),
                                 .gate_up = input.gate_up.data<T>(),
                                 .down = input.down.data<T>(),
                                 .weights = sums(input.weights),
                                 .gate_up_output = sums(forward.gate_up_output),
                                 .grad_out = sums(grad_out),
                                 .grad_rows = grad_rows.data<T>(),
                                 .x_rows = x_rows.data<T>(),
                                 .h = h.data<T>(),
                                 .grad_middle = grad_middle.data<T>(),
                                 .grad_h = sums(grad_h),
                                 .grad_x_rows = sums(grad_x_rows),
                                 .grad_weights = sums(out.weights),
                                 .grad_gate_up = sums(out.gate_up),
                                 .grad_down = sums(out.down),
                                 .want_x = wanted.x};
  clear_idle(order, 2 * s.inner * s.width, p.grad_gate_up);
  clear_idle(order, s.inner * s.width, p.grad_down);
  for_each_active(order, s, [&](std::int64_t expert, std::int64_t first, std::int64_t count) {
    expert_backward(p, order, s, expert, first, count);
  });
  if (wanted.x) combine_rows<Sum>(order, s, p.grad_x_rows, nullptr, out.x.data<Sum>());
  return out;
}

ExpertsResult forward_cpu(const ExpertsInput& input, bool keep) {
  if (input.x.dtype() == DType::f32 && input.gate_up.dtype() == DType::bf16)
    return forward_typed<float, BFloat16>(input, keep);
  return dispatch_operand(input.x.dtype(), "experts",
                          [&]<typename T>() { return forward_typed<T, T>(input, keep); });
}

ExpertsGradients backward_cpu(const Tensor& grad_out, const ExpertsInput& input,
                              const ExpertsResult& forward, const ExpertsWanted& wanted) {
  return dispatch_operand(input.x.dtype(), "experts", [&]<typename T>() {
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
  check_dtype(input.weights, sum_dtype(input.x.dtype()), kName, "weights");
  const bool is_mixed = input.x.dtype() == DType::f32 && input.gate_up.dtype() == DType::bf16;
  const DType weight = is_mixed ? DType::bf16 : input.x.dtype();
  check_dtype(input.gate_up, weight, kName, "gate_up");
  check_dtype(input.down, weight, kName, "down");
  for (const auto& [tensor, name] : {std::pair{&input.indices, "indices"},
                                     {&input.weights, "weights"},
                                     {&input.gate_up, "gate_up"},
                                     {&input.down, "down"}})
    check_device(*tensor, input.x, kName, name);
  check_contiguous(input.x, kName, "x");
  check_contiguous(input.weights, kName, "weights");
  check_contiguous(input.indices, kName, "indices");
  check_contiguous(input.gate_up, kName, "gate_up");
  check_contiguous(input.down, kName, "down");
}

/// Operations of the two products of every pair.
double work_of(const ExpertsInput& input) {
  const Sizes s(input);
  return 6.0 * static_cast<double>(s.pairs) * static_cast<double>(s.width * s.inner);
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
  const ProfileProduct timed("experts forward", work_of(input));
  return experts_table().at(input.x.device()).forward(input, keep);
}

ExpertsGradients experts_backward(const Tensor& grad_out, const ExpertsInput& input,
                                  const ExpertsResult& forward, const ExpertsWanted& wanted) {
  check_shape(grad_out, input.x.shape(), "experts_backward", "grad_out");
  check_dtype(grad_out, sum_dtype(input.x.dtype()), "experts_backward", "grad_out");
  check_dtype(input.gate_up, input.x.dtype(), "experts_backward", "gate_up");
  if (!forward.gate_up_output.defined())
    fail<Error>(
        "experts_backward: the forward pass must keep its gate_up output, got keep = false");
  const ProfileProduct timed("experts backward", 2 * work_of(input));
  return experts_table()
      .at(input.x.device())
      .backward(grad_out.contiguous(), input, forward, wanted);
}

}  // namespace lectern
