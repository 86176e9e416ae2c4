// A run under memory_gib: when the plan (nn/memory_plan.h) may probe, and what the run says of it.
#pragma once

#include "core/device.h"
#include "nn/memory_plan.h"
#include "nn/model.h"
#include "recipes/log/metrics.h"

#include <cstdint>
#include <optional>
#include <string>

namespace lectern {

/// The plan of a budget for what lives on a device.
MemoryPlan memory_plan_for(double gib, Device device);

class MemoryBudget {
 public:
  /// Without a budget (0) there is no plan, and everything here does nothing.
  MemoryBudget(double gib, Device device);

  /// The plan is made from a pass of the second step on: the first one makes the optimizer's state.
  void begin_step();
  /// Around a micro-batch's forward and backward pass. Puts the plan into the context.
  void begin_pass(const ModelInput& input, std::int64_t micro_batch, std::int64_t micro_batches,
                  ForwardContext& context);
  /// What there is to say: the plan, when it is a new one.
  std::optional<std::string> end_pass();
  /// That there will be a plan.
  std::string announcement() const;

  /// Of the step so far, in bytes.
  double peak() const;
  /// memory_predicted_bytes, blocks_kept and blocks_recomputed, once there is a plan.
  void add_fields(MetricFields& fields) const;
  const MemoryPlan* plan() const { return plan_ ? &*plan_ : nullptr; }

 private:
  double gib_;
  Device device_;
  std::optional<MemoryPlan> plan_;
  std::int64_t steps_ = 0;
  double probed_peak_ = 0;
};

}  // namespace lectern
