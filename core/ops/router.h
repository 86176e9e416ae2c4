// router: which experts a token goes to, and with what weight (DeepSeek-V2 greedy router).
//
//   logits        = x gate_weight^T                         x [N, C], gate_weight [E, C]
//   probabilities = softmax(logits, over all E experts)
//   indices[n]    = the top_k experts of probabilities[n] + selection_bias (the bias, if any, takes
//                   part in the choice only); equal values: the lowest index first
//   weights[n, k] = scaling * probabilities[n, indices[n, k]], NOT renormalised over the chosen
// The chosen experts of a token stand in descending order of probability (equal: lowest index
// first), with and without a bias.
//
// Computes in f32 (f64 for f64 inputs). Gradient of the logits, with g = the gradient that reaches
// the probabilities (directly and through the weights of the chosen):
//   grad_logits = probabilities * (g - sum(g * probabilities)) + the direct gradient of the logits
// The choice itself is piecewise constant and has no gradient.
// Sources: `DeepseekV2MoEGate` of the published model code (greedy); bias: arXiv 2408.15664.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

#include <cstdint>

namespace lectern {

struct RouterArgs {
  std::int64_t top_k = 1;   ///< K, 1 <= K <= E
  double scaling = 1.0;     ///< routed_scaling_factor
  Tensor selection_bias{};  ///< optional [E] f32, added to the probabilities for the choice only
};

struct RouterResult {
  Tensor logits;         ///< [N, E] dtype of gate_weight
  Tensor probabilities;  ///< [N, E] dtype of gate_weight
  Tensor weights;        ///< [N, K] dtype of gate_weight, descending
  Tensor indices;        ///< [N, K] i32
  Tensor counts;         ///< [E] i32, (token, choice) pairs that go to each expert; sum is N K
};

/// x [N, C], gate_weight [E, C], both f32 or both f64 (on CUDA x may be bf16 beside an f32
/// gate_weight; results are f32 then), contiguous; N may be 0. Throws ShapeError,
/// DTypeError, ConfigError (top_k outside 1..E). A row with NaN still gets K different experts.
RouterResult router_forward(const Tensor& x, const Tensor& gate_weight, const RouterArgs& args);

/// What flows back into the router; an undefined tensor counts as zero.
struct RouterIncoming {
  Tensor weights;        ///< [N, K]
  Tensor probabilities;  ///< [N, E]
  Tensor logits;         ///< [N, E]
};

struct RouterGradients {
  Tensor x;            ///< [N, C]: grad_logits gate_weight; undefined when not wanted
  Tensor gate_weight;  ///< [E, C]: grad_logits^T x; undefined when not wanted
};

/// Reads probabilities and indices of `forward`. The gradient of x is computed when gate_weight is
/// defined, that of gate_weight when x is.
RouterGradients router_backward(const RouterIncoming& incoming, const RouterResult& forward,
                                double scaling, const Tensor& x, const Tensor& gate_weight);

/// Balance loss of DeepSeekMoE (arXiv 2401.06066, eq. 12-14, without its factor alpha; the same as
/// `aux_loss` of DeepSeek-V2 over the whole batch):
///   f_e = E / (K N) * (choices of expert e),  P_e = mean over tokens of probabilities[:, e],
///   loss = sum_e f_e P_e
/// 1 when the load is even, E/K when K experts take everything with certainty. `counts` [E] i32 may
/// be summed over ranks when `choices` is (choices = sum of counts = K N of all ranks). N = 0: 0.
/// Returns a scalar of probabilities' dtype. The gradient of probabilities[n, e] is f_e / N.
Tensor balance_loss_forward(const Tensor& probabilities, const Tensor& counts);
Tensor balance_loss_backward(const Tensor& grad_loss, const Tensor& counts, std::int64_t tokens);

/// Loss-free balancing (arXiv 2408.15664, algorithm 1): bias_e += rate * sign(mean(counts) -
/// counts_e), in place. bias [E] f32, counts [E] i32 or i64 of one optimizer step (all ranks).
void update_selection_bias(const Tensor& bias, const Tensor& counts, double rate);

/// How often each of `experts` experts stands in `indices` (i32, any shape) -> [experts] i32. On
/// the CPU: throws ShapeError naming position and value of an index outside 0..experts-1.
Tensor count_experts(const Tensor& indices, std::int64_t experts);

struct RouterKernels {
  /// Fills `result`, whose tensors are allocated.
  void (*forward)(const Tensor& x, const Tensor& gate_weight, const RouterArgs& args,
                  const RouterResult& result);
  RouterGradients (*backward)(const RouterIncoming& incoming, const RouterResult& forward,
                              double scaling, const Tensor& x, const Tensor& gate_weight);
  Tensor (*balance_forward)(const Tensor& probabilities, const Tensor& counts);
  Tensor (*balance_backward)(const Tensor& grad_loss, const Tensor& counts, std::int64_t tokens);
  Tensor (*count)(const Tensor& indices, std::int64_t experts);
};
KernelTable<RouterKernels>& router_table();

}  // namespace lectern
