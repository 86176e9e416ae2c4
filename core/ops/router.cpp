#include "core/ops/router.h"

#include "core/cpu/gemm.h"
#include "core/cpu/vector_math.h"
#include "core/ops/router_math.h"
#include "core/parallel.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace lectern {
namespace {

std::int64_t row_grain(std::int64_t experts) {
  return std::max<std::int64_t>(1, (1 << 13) / experts);
}

template <typename T>
void softmax_row(const T* logits, std::int64_t n, T* out) {
  T largest = -std::numeric_limits<T>::infinity(), sum = 0;
#pragma omp simd reduction(max : largest)
  for (std::int64_t i = 0; i < n; ++i) largest = std::max(largest, logits[i]);
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) {
    out[i] = fast_exp(logits[i] - largest);
    sum += out[i];
  }
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) out[i] /= sum;
}

/// The experts with the `top_k` largest scores; `score` is used up. NaN marks a taken expert, so a
/// score that is NaN itself counts as the lowest.
template <typename T>
void take_largest(std::vector<T>& score, std::int64_t top_k, std::int32_t* chosen) {
  constexpr T kTaken = std::numeric_limits<T>::quiet_NaN();
  for (T& value : score)
    if (std::isnan(value)) value = -std::numeric_limits<T>::infinity();
  for (std::int64_t k = 0; k < top_k; ++k) {
    std::size_t best = 0;
    while (std::isnan(score[best])) ++best;
    for (std::size_t e = best + 1; e < score.size(); ++e)
      if (score[e] > score[best]) best = e;
    chosen[k] = static_cast<std::int32_t>(best);
    score[best] = kTaken;
  }
}

template <typename T>
void choose_row(const T* probabilities, const float* bias, std::int64_t top_k,
                std::vector<T>& score, std::int32_t* chosen) {
  for (std::size_t e = 0; e < score.size(); ++e)
    score[e] = probabilities[e] + (bias == nullptr ? T{0} : static_cast<T>(bias[e]));
  take_largest(score, top_k, chosen);
  if (bias == nullptr) return;
  std::sort(chosen, chosen + top_k);
  std::stable_sort(chosen, chosen + top_k, [=](std::int32_t a, std::int32_t b) {
    return probabilities[a] > probabilities[b];
  });
}

Tensor count_experts_cpu(const Tensor& indices, std::int64_t experts) {
  Tensor counts = Tensor::zeros({experts}, DType::i32);
  const std::int32_t* index = indices.data<std::int32_t>();
  std::int32_t* count = counts.data<std::int32_t>();
  for (std::int64_t i = 0; i < indices.numel(); ++i) {
    if (index[i] < 0 || index[i] >= experts)
      fail<ShapeError>(fmt::format("count_experts: indices must be 0..{}, got {} at position {}",
                                   experts - 1, index[i], i));
    ++count[index[i]];
  }
  return counts;
}

template <typename T>
void forward_typed(const Tensor& x, const Tensor& gate_weight, const RouterArgs& args,
                   const RouterResult& result) {
  const std::int64_t tokens = x.dim(0), width = x.dim(1), experts = gate_weight.dim(0);
  const std::int64_t top_k = args.top_k;
  gemm<T>({.transpose_b = true,
           .m = tokens,
           .n = experts,
           .k = width,
           .lda = width,
           .ldb = width,
           .ldc = experts},
          x.data<T>(), gate_weight.data<T>(), result.logits.data<T>());
  const T* logits = result.logits.data<T>();
  const float* bias = args.selection_bias.defined() ? args.selection_bias.data<float>() : nullptr;
  T* probabilities = result.probabilities.data<T>();
  T* weights = result.weights.data<T>();
  std::int32_t* indices = result.indices.data<std::int32_t>();
  const T scaling = static_cast<T>(args.scaling);
  parallel_for(tokens, row_grain(experts), [=](std::int64_t begin, std::int64_t end) {
    std::vector<T> score(static_cast<std::size_t>(experts));
    for (std::int64_t n = begin; n < end; ++n) {
      softmax_row(logits + n * experts, experts, probabilities + n * experts);
      choose_row(probabilities + n * experts, bias, top_k, score, indices + n * top_k);
      for (std::int64_t k = n * top_k; k < (n + 1) * top_k; ++k)
        weights[k] = scaling * probabilities[n * experts + indices[k]];
    }
  });
  result.counts.copy_from(count_experts_cpu(result.indices, experts));
}

void forward_cpu(const Tensor& x, const Tensor& gate_weight, const RouterArgs& args,
                 const RouterResult& result) {
  dispatch_floating(x.dtype(), "router",
                    [&]<typename T>() { forward_typed<T>(x, gate_weight, args, result); });
}

template <typename T>
const T* data_or_null(const Tensor& tensor) {
  return tensor.defined() ? tensor.data<T>() : nullptr;
}

template <typename T>
Tensor logits_gradient(const RouterIncoming& incoming, const RouterResult& forward,
                       double scaling) {
  const std::int64_t tokens = forward.probabilities.dim(0), experts = forward.probabilities.dim(1);
  const std::int64_t top_k = forward.indices.dim(1);
  Tensor out = Tensor::empty_like(forward.probabilities);
  const T* probabilities = forward.probabilities.data<T>();
  const std::int32_t* indices = forward.indices.data<std::int32_t>();
  const T* from_weights = data_or_null<T>(incoming.weights);
  const T* from_probabilities = data_or_null<T>(incoming.probabilities);
  const T* from_logits = data_or_null<T>(incoming.logits);
  T* grad = out.data<T>();
  const T factor = static_cast<T>(scaling);
  parallel_for(tokens, row_grain(experts), [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const T* p = probabilities + n * experts;
      T* g = grad + n * experts;
      for (std::int64_t e = 0; e < experts; ++e)
        g[e] = from_probabilities == nullptr ? T{0} : from_probabilities[n * experts + e];
      if (from_weights != nullptr)
        for (std::int64_t k = n * top_k; k < (n + 1) * top_k; ++k)
          g[indices[k]] += factor * from_weights[k];
      T mean = 0;
#pragma omp simd reduction(+ : mean)
      for (std::int64_t e = 0; e < experts; ++e) mean += g[e] * p[e];
      for (std::int64_t e = 0; e < experts; ++e)
        g[e] = router_math::grad_logit(
            p[e], g[e], mean, from_logits == nullptr ? T{0} : from_logits[n * experts + e]);
    }
  });
  return out;
}

template <typename T>
RouterGradients backward_typed(const RouterIncoming& incoming, const RouterResult& forward,
                               double scaling, const Tensor& x, const Tensor& gate_weight) {
  const Tensor grad_logits = logits_gradient<T>(incoming, forward, scaling);
  const std::int64_t tokens = grad_logits.dim(0), experts = grad_logits.dim(1);
  RouterGradients out;
  if (gate_weight.defined()) {
    const std::int64_t width = gate_weight.dim(1);
    out.x = Tensor::empty({tokens, width}, gate_weight.dtype());
    gemm<T>({.m = tokens, .n = width, .k = experts, .lda = experts, .ldb = width, .ldc = width},
            grad_logits.data<T>(), gate_weight.data<T>(), out.x.data<T>());
  }
  if (x.defined()) {
    const std::int64_t width = x.dim(1);
    out.gate_weight = Tensor::empty({experts, width}, x.dtype());
    gemm<T>({.transpose_a = true,
             .m = experts,
             .n = width,
             .k = tokens,
             .lda = experts,
             .ldb = width,
             .ldc = width},
            grad_logits.data<T>(), x.data<T>(), out.gate_weight.data<T>());
  }
  return out;
}

RouterGradients backward_cpu(const RouterIncoming& incoming, const RouterResult& forward,
                             double scaling, const Tensor& x, const Tensor& gate_weight) {
  return dispatch_floating(forward.probabilities.dtype(), "router", [&]<typename T>() {
    return backward_typed<T>(incoming, forward, scaling, x, gate_weight);
  });
}

/// f_e of the balance loss: 1 for every expert when the load is even.
std::vector<double> load_fractions(const Tensor& counts) {
  const std::int32_t* count = counts.data<std::int32_t>();
  const auto experts = static_cast<std::size_t>(counts.dim(0));
  double choices = 0;
  for (std::size_t e = 0; e < experts; ++e) choices += count[e];
  std::vector<double> fraction(experts, 0.0);
  if (choices > 0)
    for (std::size_t e = 0; e < experts; ++e)
      fraction[e] = static_cast<double>(experts) * count[e] / choices;
  return fraction;
}

Tensor balance_forward_cpu(const Tensor& probabilities, const Tensor& counts) {
  const std::vector<double> fraction = load_fractions(counts);
  const std::int64_t tokens = probabilities.dim(0), experts = probabilities.dim(1);
  double loss = 0;
  dispatch_floating(probabilities.dtype(), "balance_loss", [&]<typename T>() {
    const T* p = probabilities.data<T>();
    for (std::int64_t n = 0; n < tokens; ++n)
      for (std::int64_t e = 0; e < experts; ++e)
        loss += fraction[static_cast<std::size_t>(e)] * static_cast<double>(p[n * experts + e]);
  });
  return Tensor::full({}, tokens == 0 ? 0.0 : loss / static_cast<double>(tokens),
                      probabilities.dtype());
}

Tensor balance_backward_cpu(const Tensor& grad_loss, const Tensor& counts, std::int64_t tokens) {
  const std::vector<double> fraction = load_fractions(counts);
  const auto experts = static_cast<std::int64_t>(fraction.size());
  Tensor out = Tensor::empty({tokens, experts}, grad_loss.dtype());
  const double scale = grad_loss.item() / static_cast<double>(std::max<std::int64_t>(tokens, 1));
  dispatch_floating(out.dtype(), "balance_loss", [&]<typename T>() {
    T* grad = out.data<T>();
    for (std::int64_t n = 0; n < tokens; ++n)
      for (std::int64_t e = 0; e < experts; ++e)
        grad[n * experts + e] = static_cast<T>(scale * fraction[static_cast<std::size_t>(e)]);
  });
  return out;
}

}  // namespace

KernelTable<RouterKernels>& router_table() {
  static KernelTable<RouterKernels> instance(
      "router",
      {forward_cpu, backward_cpu, balance_forward_cpu, balance_backward_cpu, count_experts_cpu});
  return instance;
}

RouterResult router_forward(const Tensor& x, const Tensor& gate_weight, const RouterArgs& args) {
  check_ndim(x, 2, "router", "x");
  check_ndim(gate_weight, 2, "router", "gate_weight");
  const std::int64_t tokens = x.dim(0), experts = gate_weight.dim(0);
  check_shape(gate_weight, {experts, x.dim(1)}, "router", "gate_weight");
  check_computable(x, "router", "x");
  check_dtype(gate_weight, accumulation_dtype(x.dtype()), "router", "gate_weight");
  check_device(gate_weight, x, "router", "gate_weight");
  check_contiguous(x, "router", "x");
  check_contiguous(gate_weight, "router", "gate_weight");
  if (args.top_k < 1 || args.top_k > experts)
    fail<ConfigError>(
        fmt::format("router: top_k must be 1..{} (the experts), got {}", experts, args.top_k));
  if (args.selection_bias.defined()) {
    check_shape(args.selection_bias, {experts}, "router", "selection_bias");
    check_dtype(args.selection_bias, DType::f32, "router", "selection_bias");
    check_contiguous(args.selection_bias, "router", "selection_bias");
  }
  RouterResult result;
  result.logits = Tensor::empty({tokens, experts}, gate_weight.dtype(), x.device());
  result.probabilities = Tensor::empty_like(result.logits);
  result.weights = Tensor::empty({tokens, args.top_k}, gate_weight.dtype(), x.device());
  result.indices = Tensor::empty({tokens, args.top_k}, DType::i32, x.device());
  result.counts = Tensor::empty({experts}, DType::i32, x.device());
  router_table().at(x.device()).forward(x, gate_weight, args, result);
  return result;
}

RouterGradients router_backward(const RouterIncoming& incoming, const RouterResult& forward,
                                double scaling, const Tensor& x, const Tensor& gate_weight) {
  const Tensor& probabilities = forward.probabilities;
  const auto prepare = [&](const Tensor& grad, const Shape& shape, std::string_view name) {
    if (!grad.defined()) return grad;
    check_shape(grad, shape, "router_backward", name);
    check_dtype(grad, probabilities.dtype(), "router_backward", name);
    return grad.contiguous();
  };
  const RouterIncoming ready = {
      prepare(incoming.weights, forward.indices.shape(), "gradient of weights"),
      prepare(incoming.probabilities, probabilities.shape(), "gradient of probabilities"),
      prepare(incoming.logits, probabilities.shape(), "gradient of logits")};
  return router_table()
      .at(probabilities.device())
      .backward(ready, forward, scaling, x, gate_weight);
}

Tensor balance_loss_forward(const Tensor& probabilities, const Tensor& counts) {
  check_ndim(probabilities, 2, "balance_loss", "probabilities");
  check_contiguous(probabilities, "balance_loss", "probabilities");
  check_shape(counts, {probabilities.dim(1)}, "balance_loss", "counts");
  check_dtype(counts, DType::i32, "balance_loss", "counts");
  return router_table()
      .at(probabilities.device())
      .balance_forward(probabilities, counts.contiguous());
}

Tensor balance_loss_backward(const Tensor& grad_loss, const Tensor& counts, std::int64_t tokens) {
  return router_table()
      .at(grad_loss.device())
      .balance_backward(grad_loss, counts.contiguous(), tokens);
}

void update_selection_bias(const Tensor& bias, const Tensor& counts, double rate) {
  check_ndim(bias, 1, "update_selection_bias", "bias");
  check_dtype(bias, DType::f32, "update_selection_bias", "bias");
  check_contiguous(bias, "update_selection_bias", "bias");
  check_shape(counts, bias.shape(), "update_selection_bias", "counts");
  const std::int64_t experts = bias.dim(0);
  const Tensor load = counts.to(Device{}).to(DType::i64).contiguous();
  const std::int64_t* count = load.data<std::int64_t>();
  std::int64_t total = 0;
  for (std::int64_t e = 0; e < experts; ++e) total += count[e];
  float* b = bias.data<float>();
  for (std::int64_t e = 0; e < experts; ++e) {
    const std::int64_t missing = total - count[e] * experts;  // sign of mean - count, exactly
    const int sign = (missing > 0) - (missing < 0);
    b[e] = static_cast<float>(static_cast<double>(b[e]) + rate * sign);
  }
  bias.mark_modified();
}

Tensor count_experts(const Tensor& indices, std::int64_t experts) {
  check_dtype(indices, DType::i32, "count_experts", "indices");
  check_contiguous(indices, "count_experts", "indices");
  return router_table().at(indices.device()).count(indices, experts);
}

}  // namespace lectern
