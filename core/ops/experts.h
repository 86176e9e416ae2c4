// experts: the routed feed-forward of a mixture of experts.
//
//   out[n] = sum_k weights[n, k] * down_e (silu(gate_e x[n]) * (up_e x[n])),   e = indices[n, k]
//
// x        [N, C]     weights [N, K]     indices [N, K] i32, 0..E-1
// gate_up  [E, 2I, C] per expert: I gate rows, then I up rows
// down     [E, C, I]
// out      [N, C]
// All floating tensors f32 or all f64; or x, gate_up and down bf16 and the rest (and all gradients)
// f32: what goes into a product is rounded to bf16 then: silu(gate) * up and the gradients that
// backward passes on; or, forward only, gate_up and down bf16 and the rest f32
// (core/cpu/mixed_gemm.h). Contiguous. An expert may be chosen twice by one token.
//
// The N K (token, choice) pairs are sorted by expert (counting sort, stable), the rows of x
// gathered per expert, and each expert with tokens does two matrix products. A token then adds up
// its K rows in the order of k, so the result does not depend on threads. Kept for backward: the
// gate_up outputs, N K 2I values, and the order of the pairs, 2 N K integers; silu(gate) * up is
// computed again, as are the gathered rows.
//
// With h = silu(gate) * up of a pair, G = grad_out[n], w its weight:
//   grad_weights = (down_e^T G) . h      grad_down_e = sum over pairs of G (w h)^T
//   grad_h = w down_e^T G                grad_gate_up_e, grad_x by the chain rule of SwiGLU
// Experts without tokens get a gradient of zero.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

#include <cstdint>
#include <vector>

namespace lectern {

/// The pairs (token n, choice k), numbered n K + k, in the order of their experts.
struct ExpertOrder {
  std::vector<std::int64_t> begin;     ///< [E + 1]: expert e has places begin[e] .. begin[e+1]-1
  std::vector<std::int32_t> pair_at;   ///< [N K]: pair at a place
  std::vector<std::int32_t> place_of;  ///< [N K]: place of a pair
  std::vector<std::int32_t> active;    ///< experts with tokens, most tokens first
  // On CUDA, where nobody waits for the choice, the same stands in tensors and the vectors are
  // empty.
  Tensor begin_on_device, pair_at_on_device, place_of_on_device;
  Tensor tile_begin_on_device;  ///< [E + 1] begin in tiles of rows
};

/// Throws ShapeError naming position and value of an index outside 0..experts-1.
ExpertOrder sort_by_expert(const Tensor& indices, std::int64_t experts);

struct ExpertsInput {
  Tensor x, weights, indices, gate_up, down;
};

struct ExpertsResult {
  Tensor out;             ///< [N, C]
  Tensor gate_up_output;  ///< [N K, 2I] in the order of `order`; undefined when not kept
  ExpertOrder order;
};

/// Which gradients to compute.
struct ExpertsWanted {
  bool x = true, weights = true, gate_up = true, down = true;
};

/// As wanted; the others are undefined.
struct ExpertsGradients {
  Tensor x, weights, gate_up, down;
};

/// `keep` says whether backward will run. Throws ShapeError or DTypeError; N = 0 gives [0, C].
ExpertsResult experts_forward(const ExpertsInput& input, bool keep);
ExpertsGradients experts_backward(const Tensor& grad_out, const ExpertsInput& input,
                                  const ExpertsResult& forward, const ExpertsWanted& wanted);

struct ExpertsKernels {
  ExpertsResult (*forward)(const ExpertsInput& input, bool keep);
  ExpertsGradients (*backward)(const Tensor& grad_out, const ExpertsInput& input,
                               const ExpertsResult& forward, const ExpertsWanted& wanted);
};
KernelTable<ExpertsKernels>& experts_table();

}  // namespace lectern
