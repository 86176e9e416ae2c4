#include "core/ops/router.h"
#include "core/ops/router_math.h"
#include "cuda/collective.h"
#include "cuda/launch.h"
#include "cuda/matrix_product.h"
#include "cuda/ops/column_sum.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

namespace lectern::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr std::int64_t kMostChoices = kWarp;
constexpr int kMostPerLane = 32;

struct Forward {
  Span<const float> logits, bias;  // bias may not exist
  Span<float> probabilities, weights;
  Span<std::int32_t> indices, counts;
  std::int64_t tokens;
  int experts, top_k;
  float scaling;
};

/// The largest score of a warp and its expert; equal scores: the lowest expert. Lanes bring theirs.
__device__ inline void best_of_warp(float& score, int& expert) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    const float other_score = __shfl_xor_sync(kAllLanes, score, lanes);
    const int other = __shfl_xor_sync(kAllLanes, expert, lanes);
    if (router_math::is_before(other_score, other, score, expert)) {
      score = other_score;
      expert = other;
    }
  }
}

/// A warp routes a token; lane i holds experts i, i + 32, ...
/// Over 60 lines: a token's scores stay in registers from the softmax to the last choice.
template <int kPerLane>
__global__ void route_kernel(Forward a) {
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (token >= a.tokens) return;  // whole warps leave
  float p[kPerLane], score[kPerLane];
  float largest = -INFINITY, sum = 0;
  for (int i = 0; i < kPerLane; ++i) {
    const int expert = i * kWarp + lane;
    p[i] = expert < a.experts ? a.logits[token * a.experts + expert] : -INFINITY;
    largest = fmaxf(largest, p[i]);
  }
  largest = warp_max(largest);
  for (int i = 0; i < kPerLane; ++i) {
    p[i] = i * kWarp + lane < a.experts ? expf(p[i] - largest) : 0.0f;
    sum += p[i];
  }
  sum = warp_sum(sum);
  for (int i = 0; i < kPerLane; ++i) {
    const int expert = i * kWarp + lane;
    score[i] = -INFINITY;
    if (expert >= a.experts) continue;
    p[i] /= sum;
    a.probabilities[token * a.experts + expert] = p[i];
    score[i] = p[i] + (a.bias.exists() ? a.bias[expert] : 0.0f);
    if (!(score[i] == score[i])) score[i] = -INFINITY;  // NaN counts as the lowest
  }
  unsigned taken = 0;  // bit i: expert i * 32 + lane
  int chosen = a.experts;
  float chosen_p = -INFINITY;
  for (int k = 0; k < a.top_k; ++k) {
    float best = -INFINITY;
    int expert = kMostPerLane * kWarp;  // stands behind every expert, also one of -infinity
    float best_p = 0;
    for (int i = 0; i < kPerLane; ++i) {
      const int candidate = i * kWarp + lane;
      if (candidate >= a.experts || (taken >> i & 1u) != 0) continue;
      if (router_math::is_before(score[i], candidate, best, expert)) {
        best = score[i];
        expert = candidate;
        best_p = p[i];
      }
    }
    const int mine = expert;
    best_of_warp(best, expert);
    if (mine == expert) taken |= 1u << (expert / kWarp);
    const float value = __shfl_sync(kAllLanes, best_p, expert % kWarp);
    if (lane == k) {
      chosen = expert;
      chosen_p = value;
    }
  }
  // In descending order of probability: without a bias they are already.
  int place = 0;
  for (int k = 0; k < a.top_k; ++k) {
    const float other_p = __shfl_sync(kAllLanes, chosen_p, k);
    const int other = __shfl_sync(kAllLanes, chosen, k);
    if (k != lane && router_math::is_before(other_p, other, chosen_p, chosen)) ++place;
  }
  if (!a.bias.exists()) place = lane;
  if (lane < a.top_k) {
    a.indices[token * a.top_k + place] = chosen;
    a.weights[token * a.top_k + place] = a.scaling * chosen_p;
    a.counts.atomic_add(chosen, 1);
  }
}

struct Backward {
  Span<const float> probabilities;
  Span<const std::int32_t> indices;
  Span<const float> from_weights, from_probabilities, from_logits;  // may not exist
  Span<float> grad;
  std::int64_t tokens;
  int experts, top_k;
  float scaling;
};

__device__ inline float gradient_of(const Backward& a, std::int64_t token, int expert) {
  float g = a.from_probabilities.exists() ? a.from_probabilities[token * a.experts + expert] : 0.0f;
  if (a.from_weights.exists())
    for (std::int64_t k = token * a.top_k; k < (token + 1) * a.top_k; ++k)
      if (a.indices[k] == expert) g += a.scaling * a.from_weights[k];
  return g;
}

__global__ void grad_logits_kernel(Backward a) {
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (token >= a.tokens) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float mean = 0;
  for (int e = lane; e < a.experts; e += kWarp)
    mean += gradient_of(a, token, e) * a.probabilities[token * a.experts + e];
  mean = warp_sum(mean);
  for (int e = lane; e < a.experts; e += kWarp) {
    const std::int64_t at = token * a.experts + e;
    a.grad[at] = router_math::grad_logit(a.probabilities[at], gradient_of(a, token, e), mean,
                                         a.from_logits.exists() ? a.from_logits[at] : 0.0f);
  }
}

__global__ void count_kernel(Span<const std::int32_t> indices, Span<std::int32_t> counts,
                             std::int64_t count) {
  for (std::int64_t i = grid_thread(); i < count; i += grid_threads())
    counts.atomic_add(indices[i], 1);
}

/// E * counts[e] / sum of counts; 0 without choices. One warp; `experts` any number.
__device__ inline float load_fraction(const Span<const std::int32_t>& counts, int experts, int e,
                                      float choices) {
  return choices > 0 ? static_cast<float>(experts) * static_cast<float>(counts[e]) / choices : 0.0f;
}

/// loss = sum over e of f_e * sums[e] / tokens, in one warp.
__global__ void balance_kernel(Span<const float> sums, Span<const std::int32_t> counts,
                               Span<float> loss, int experts, float tokens) {
  const int lane = static_cast<int>(threadIdx.x);
  float choices = 0, total = 0;
  for (int e = lane; e < experts; e += kWarp) choices += static_cast<float>(counts[e]);
  choices = warp_sum(choices);
  for (int e = lane; e < experts; e += kWarp)
    total += load_fraction(counts, experts, e, choices) * sums[e];
  total = warp_sum(total);
  if (lane == 0) loss[0] = tokens > 0 ? total / tokens : 0.0f;
}

/// grad[n, e] = grad_loss * f_e / tokens; a warp takes tokens in turn.
__global__ void balance_backward_kernel(Span<const float> grad_loss,
                                        Span<const std::int32_t> counts, Span<float> grad,
                                        std::int64_t tokens, int experts) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float choices = 0;
  for (int e = lane; e < experts; e += kWarp) choices += static_cast<float>(counts[e]);
  choices = warp_sum(choices);
  const float scale = grad_loss[0] / static_cast<float>(tokens);
  for (std::int64_t n = grid_thread() / kWarp; n < tokens; n += grid_threads() / kWarp)
    for (int e = lane; e < experts; e += kWarp)
      grad[n * experts + e] = scale * load_fraction(counts, experts, e, choices);
}

void forward(const Tensor& x, const Tensor& gate_weight, const RouterArgs& args,
             const RouterResult& result) {
  const std::int64_t tokens = x.dim(0), width = x.dim(1), experts = gate_weight.dim(0);
  if (args.top_k > kMostChoices || experts > kMostPerLane * kWarp)
    fail<ConfigError>(
        fmt::format("router: top_k must be 1..{} and experts 1..{} on CUDA, got {} "
                    "and {}",
                    kMostChoices, kMostPerLane * kWarp, args.top_k, experts));
  result.counts.fill(0);
  if (tokens == 0) return;
  matrix_product({.transpose_b = true,
                  .m = tokens,
                  .n = experts,
                  .k = width,
                  .lda = width,
                  .ldb = width,
                  .ldc = experts},
                 x.to(DType::f32), gate_weight.to(DType::f32), result.logits);
  const Tensor bias = on_device(args.selection_bias, x.device());
  const Forward arguments{span<const float>(result.logits),
                          span<const float>(bias),
                          span<float>(result.probabilities),
                          span<float>(result.weights),
                          span<std::int32_t>(result.indices),
                          span<std::int32_t>(result.counts),
                          tokens,
                          static_cast<int>(experts),
                          static_cast<int>(args.top_k),
                          static_cast<float>(args.scaling)};
  const LaunchShape shape{static_cast<unsigned>(ceil_divide(tokens, kWarps)), kThreads};
  if (experts <= 2 * kWarp)
    launch("route", shape, route_kernel<2>, arguments);
  else if (experts <= 8 * kWarp)
    launch("route", shape, route_kernel<8>, arguments);
  else
    launch("route", shape, route_kernel<kMostPerLane>, arguments);
}

RouterGradients backward(const RouterIncoming& incoming, const RouterResult& forward,
                         double scaling, const Tensor& x, const Tensor& gate_weight) {
  const Tensor& p = forward.probabilities;
  const std::int64_t tokens = p.dim(0), experts = p.dim(1);
  const Tensor grad = Tensor::empty(p.shape(), DType::f32, p.device());
  if (tokens > 0)
    launch("router_backward", {static_cast<unsigned>(ceil_divide(tokens, kWarps)), kThreads},
           grad_logits_kernel,
           Backward{span<const float>(p), span<const std::int32_t>(forward.indices),
                    span<const float>(incoming.weights), span<const float>(incoming.probabilities),
                    span<const float>(incoming.logits), span<float>(grad), tokens,
                    static_cast<int>(experts), static_cast<int>(forward.indices.dim(1)),
                    static_cast<float>(scaling)});
  RouterGradients out;
  if (gate_weight.defined()) {
    const std::int64_t width = gate_weight.dim(1);
    out.x = Tensor::empty({tokens, width}, DType::f32, p.device());
    matrix_product(
        {.m = tokens, .n = width, .k = experts, .lda = experts, .ldb = width, .ldc = width}, grad,
        gate_weight.to(DType::f32), out.x);
  }
  if (x.defined()) {
    const std::int64_t width = x.dim(1);
    out.gate_weight = Tensor::empty({experts, width}, DType::f32, p.device());
    matrix_product({.transpose_a = true,
                    .m = experts,
                    .n = width,
                    .k = tokens,
                    .lda = experts,
                    .ldb = width,
                    .ldc = width},
                   grad, x.to(DType::f32), out.gate_weight);
  }
  return out;
}

Tensor balance_forward(const Tensor& probabilities, const Tensor& counts) {
  const std::int64_t tokens = probabilities.dim(0), experts = probabilities.dim(1);
  const Device device = probabilities.device();
  const Tensor sums = Tensor::empty({experts}, DType::f32, device);
  const Tensor loss = Tensor::empty({}, DType::f32, device);
  column_sum(probabilities, tokens, experts, sums);
  const Tensor on_gpu = on_device(counts, device);
  launch("balance_loss", {1, kWarp}, balance_kernel, span<const float>(sums),
         span<const std::int32_t>(on_gpu), span<float>(loss), static_cast<int>(experts),
         static_cast<float>(tokens));
  return loss;
}

Tensor balance_backward(const Tensor& grad_loss, const Tensor& counts, std::int64_t tokens) {
  const std::int64_t experts = counts.dim(0);
  const Tensor out = Tensor::empty({tokens, experts}, DType::f32, grad_loss.device());
  if (tokens == 0) return out;
  const Tensor on_gpu = on_device(counts, grad_loss.device());
  launch("balance_backward", {grid_for(tokens, kWarps), kThreads}, balance_backward_kernel,
         span<const float>(grad_loss), span<const std::int32_t>(on_gpu), span<float>(out), tokens,
         static_cast<int>(experts));
  return out;
}

Tensor count(const Tensor& indices, std::int64_t experts) {
  const Tensor counts = Tensor::zeros({experts}, DType::i32, indices.device());
  if (indices.numel() > 0)
    launch("count_experts", {grid_for(indices.numel(), 256), 256}, count_kernel,
           span<const std::int32_t>(indices), span<std::int32_t>(counts), indices.numel());
  return counts;
}

}  // namespace

void register_router() {
  router_table().set(DeviceType::cuda,
                     {forward, backward, balance_forward, balance_backward, count});
}

}  // namespace lectern::cuda
