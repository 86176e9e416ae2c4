// DeepSeek-MoE (arXiv 2401.06066): fine-grained routed experts and shared ones.
#pragma once

#include "nn/blocks/swiglu_mlp.h"
#include "nn/forward_context.h"
#include "nn/linear.h"

#include <cstdint>
#include <string>

namespace lectern {

struct MoeArgs {
  std::int64_t routed_experts = 0, shared_experts = 0, top_k = 0, intermediate_size = 0;
  double scaling = 1.0;
  std::int64_t expert_rank = 0, expert_ranks = 1;  ///< which routed experts are in this process
};

/// Top-k of the routed experts, weighted by their softmax values, plus the shared experts as one
/// SwiGLU (arXiv 2401.06066).
class MoeMlp {
 public:
  /// `layer` numbers the seams and reports. Throws ConfigError when the experts do not divide by
  /// the ranks.
  MoeMlp(ParameterStore& store, const std::string& prefix, std::int64_t layer,
         std::int64_t hidden_size, const MoeArgs& args, double initializer_range);
  /// x [B, T, C] -> [B, T, C]. Throws Error when experts are elsewhere and the context has no
  /// exchange.
  Variable forward(const Variable& x, ForwardContext& context) const;

 private:
  std::int64_t layer_;
  MoeArgs args_;
  Parameter gate_;
  LinearStack gate_up_, down_;
  SwigluMlp shared_;
};

}  // namespace lectern
