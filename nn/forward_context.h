// What one forward pass carries besides tensors: who listens, what to recompute, what MoE reports.
#pragma once

#include "autograd/variable.h"
#include "nn/stream_statistics.h"

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace lectern {

class MemoryPlan;
class RowExchange;

struct ForwardContext {
  /// Called with the name and value of every seam that the fixtures know ("decoder.layer3"). Empty:
  /// nobody listens.
  std::function<void(const std::string& name, const Tensor& value)> record_seam;
  /// Keep only the inputs of transformer and SAM blocks and compute the rest again in backward.
  bool recompute_blocks = false;
  /// Decides that block by block instead, for a budget (nn/memory_plan.h).
  MemoryPlan* memory_plan = nullptr;
  /// Blocks a segment of residual streams whose values backward rebuilds; 0: keep all, -1: eq. 20.
  /// Changes memory only (nn/blocks/residual.h).
  std::int64_t stream_interval = 0;
  /// Ask stacks of residual streams for their gains; one entry a pass through a stack.
  bool want_stream_statistics = false;
  std::vector<StreamStatistics> stream_statistics;
  std::vector<Tensor> stream_mixes;  ///< of the stack that is being passed
  /// Ask routers for the auxiliary balance loss; they append one scalar a layer to balance_losses.
  bool want_balance_loss = false;
  std::vector<Variable> balance_losses;
  /// Tokens that each expert of each MoE layer received, i32 [experts], by layer.
  std::map<std::int64_t, Tensor> expert_counts;
  /// Brings rows to experts of other ranks, where a model's placement has them there.
  RowExchange* expert_exchange = nullptr;
  /// Optional selection bias of each MoE layer, f32 [experts] (loss-free balancing).
  std::map<std::int64_t, Tensor> selection_bias;

  void seam(const std::string& name, const Tensor& value) const {
    if (record_seam) record_seam(name, value);
  }
  bool listens() const { return static_cast<bool>(record_seam); }
};

}  // namespace lectern
