// What one optimizer step adds up over its micro-batches and over the ranks.
#pragma once

#include "core/tensor.h"
#include "distributed/communicator.h"
#include "nn/stream_statistics.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>

namespace lectern {

struct StepTotals {
  double loss_sum = 0;     ///< of trained tokens
  double balance_sum = 0;  ///< mean over layers, summed over micro-batches
  std::int64_t micro_batches = 0;
  std::int64_t trained_tokens = 0;
  std::int64_t tokens = 0;  ///< positions that went through the decoder
  std::int64_t samples = 0;
  double other_expert_load = 0;                     ///< the worst layer of other stages
  double work_spread = 1;                           ///< busiest rank's planned work over the mean
  std::map<std::int64_t, Tensor> expert_counts;     ///< i32 [experts], by layer
  std::map<std::string, StreamStatistics> streams;  ///< by stack

  double loss() const {
    return loss_sum / static_cast<double>(std::max<std::int64_t>(1, trained_tokens));
  }
  void add_expert_counts(const std::map<std::int64_t, Tensor>& counts);
  /// Busiest expert's tokens over the mean, the worst layer's; 1 is perfect balance.
  double worst_expert_load() const;
};

/// Replaces the totals of each rank by those of all. Collective: every rank has the same layers.
void add_over_ranks(Communicator& ranks, StepTotals& totals);

/// The same over the stages of a pipeline: loss and counts are the last stage's, a stack's gains
/// those of the stage where it ends, balance losses and the worst expert load those of all.
/// Collective.
void add_over_stages(Communicator& stages, StepTotals& totals);

}  // namespace lectern
