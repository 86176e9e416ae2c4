// router with gradients; formulas in core/ops/router.h.
#pragma once

#include "autograd/variable.h"
#include "core/ops/router.h"

#include <cstdint>

namespace lectern {

struct RouterOutput {
  Variable weights;        ///< [N, K] softmax values x scaling, descending, not renormalised
  Tensor indices;          ///< [N, K] i32
  Variable probabilities;  ///< [N, E]
  Variable logits;         ///< [N, E]
  Tensor counts;           ///< [E] i32, (token, choice) pairs of each expert
};

/// Saves x, gate_weight (by reference), the probabilities and the indices.
RouterOutput router(const Variable& x, const Variable& gate_weight, const RouterArgs& args);

/// Scalar; gradient to the probabilities only. `experts` and `top_k` must match the shapes of
/// probabilities [N, E] and indices [N, K]. Multiply by alpha (0.001 in DeepSeek-V2) outside.
Variable balance_loss(const Variable& probabilities, const Tensor& indices, std::int64_t experts,
                      std::int64_t top_k);

}  // namespace lectern
