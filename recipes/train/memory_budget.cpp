#include "recipes/train/memory_budget.h"

#include "recipes/machine/device.h"

#include <fmt/core.h>

#include <algorithm>

namespace lectern {

MemoryPlan memory_plan_for(double gib, Device device) {
  return {gib * (1 << 30), MemoryProbe{[device] { return memory_statistics_of(device); },
                                       [device] { reset_peak_memory_of(device); },
                                       [device] { synchronize(device); }}};
}

MemoryBudget::MemoryBudget(double gib, Device device) : gib_(gib), device_(device) {
  if (gib > 0) plan_.emplace(memory_plan_for(gib, device));
}

void MemoryBudget::begin_step() {
  ++steps_;
  probed_peak_ = 0;
}

void MemoryBudget::begin_pass(const ModelInput& input, std::int64_t micro_batch,
                              std::int64_t micro_batches, ForwardContext& context) {
  if (!plan_) return;
  const auto size = [](const Tensor& pixels) { return pixels.defined() ? pixels.numel() : 0; };
  // From the second micro-batch on the gradients of the ones before are waiting.
  const bool all_is_there = micro_batch > 0 || micro_batches == 1;
  plan_->begin({input.input_ids.numel(), size(input.pixel_values), size(input.pixel_values_local)},
               steps_ > 1 && all_is_there);
  context.memory_plan = &*plan_;
}

std::optional<std::string> MemoryBudget::end_pass() {
  if (!plan_) return std::nullopt;
  const bool is_new = plan_->end();
  probed_peak_ = std::max(probed_peak_, plan_->peak_of_pass());
  if (!is_new) return std::nullopt;
  return plan_->describe();
}

std::string MemoryBudget::announcement() const {
  return fmt::format(
      "memory: at most {:g} GiB; every block recomputes until the second step has been measured",
      gib_);
}

double MemoryBudget::peak() const {
  return std::max(probed_peak_, static_cast<double>(memory_statistics_of(device_).peak_bytes));
}

void MemoryBudget::add_fields(MetricFields& fields) const {
  if (!plan_ || plan_->predicted_peak() == 0) return;
  fields["memory_predicted_bytes"] = static_cast<std::int64_t>(plan_->predicted_peak());
  fields["blocks_kept"] = plan_->kept_blocks();
  fields["blocks_recomputed"] = plan_->blocks() - plan_->kept_blocks();
}

}  // namespace lectern
