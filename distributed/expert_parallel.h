// RowExchange (autograd/ops/exchanged_experts.h) over a communicator: all-to-all with the numbers
// of rows that the routing gives.
#pragma once

#include "autograd/ops/exchanged_experts.h"
#include "distributed/communicator.h"

#include <memory>
#include <vector>

namespace lectern {

/// What expert parallelism moved since it was made, on this rank.
struct ExchangeStatistics {
  std::int64_t rows_sent = 0;      ///< to other ranks
  std::int64_t rows_kept = 0;      ///< for experts of this rank
  std::int64_t most_received = 0;  ///< rows of the fullest exchange
  std::int64_t exchanges = 0;
};

class ExpertParallel : public RowExchange {
 public:
  /// `group`: the ranks that share one set of experts, in the order in which they hold them.
  explicit ExpertParallel(std::shared_ptr<Communicator> group) : group_(std::move(group)) {}

  std::int64_t rank() const override { return group_->rank(); }
  std::int64_t ranks() const override { return group_->size(); }
  Counts counts(const Counts& send) override;
  void start(const Tensor& rows, const Counts& send, const Tensor& out,
             const Counts& receive) override;
  void wait() override;

  const ExchangeStatistics& statistics() const { return statistics_; }

 private:
  std::shared_ptr<Communicator> group_;
  std::vector<Handle> started_;
  ExchangeStatistics statistics_;
};

}  // namespace lectern
