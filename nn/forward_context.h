// What one forward pass carries besides tensors: what it is given, and what it reports.
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

/// What a pass is given. A pass inside it, such as a block that runs again in backward, is given
/// the same.
struct PassSettings {
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
  /// Ask stacks of residual streams for their gains.
  bool want_stream_statistics = false;
  /// Ask routers for the auxiliary balance loss.
  bool want_balance_loss = false;
  /// Brings rows to experts of other ranks, where a model's placement has them there.
  RowExchange* expert_exchange = nullptr;
  /// Optional selection bias of each MoE layer, f32 [experts] (loss-free balancing).
  std::map<std::int64_t, Tensor> selection_bias;

  void seam(const std::string& name, const Tensor& value) const {
    if (record_seam) record_seam(name, value);
  }
  bool listens() const { return static_cast<bool>(record_seam); }
};

/// What a pass reports.
struct PassReport {
  std::vector<StreamStatistics> stream_statistics;  ///< one entry a pass through a stack
  std::vector<Tensor> stream_mixes;                 ///< of the stack that is being passed
  std::vector<Variable> balance_losses;             ///< one scalar a MoE layer
  /// Tokens that each expert of each MoE layer received, i32 [experts], by layer.
  std::map<std::int64_t, Tensor> expert_counts;

  /// Appends the report of a pass inside this one.
  void add(PassReport inner);
};

/// It has no members of its own: what is not a setting is a report.
struct ForwardContext : PassSettings, PassReport {
  ForwardContext() = default;
  /// Of a pass inside another: the same settings, and nothing to report yet.
  explicit ForwardContext(const PassSettings& settings) : PassSettings(settings) {}
  const PassSettings& settings() const { return *this; }
};

}  // namespace lectern
