// experts() with the experts spread over ranks: every rank holds E / R of them and computes for the
// tokens of all ranks that chose them.
//
// The (token, choice) pairs are sorted by expert, and so by the rank that has it; rows of x, their
// weights and expert numbers go there, the results come back, and a token adds up its K rows in the
// order of k. No pair is dropped, however uneven the choice. Gradients of gate_up and down are sums
// over the tokens of all ranks. Expert parallelism as in GShard, arXiv 2006.16668, without its
// capacity.
#pragma once

#include "autograd/variable.h"

#include <cstdint>
#include <functional>
#include <vector>

namespace lectern {

/// How rows travel between the ranks that share the experts. All ranks call the same functions in
/// the same order.
class RowExchange {
 public:
  using Counts = std::vector<std::int64_t>;  ///< rows to or from each rank, in their order

  virtual ~RowExchange() = default;
  virtual std::int64_t rank() const = 0;
  virtual std::int64_t ranks() const = 0;
  /// What each rank sends here, when this one sends `send`.
  virtual Counts counts(const Counts& send) = 0;
  /// Starts sending the rows of `rows` to the ranks in turn; `out` fills with what came from rank
  /// 0, 1, ... Both stay untouched until wait(). Exchanges are done in the order they are started.
  virtual void start(const Tensor& rows, const Counts& send, const Tensor& out,
                     const Counts& receive) = 0;
  /// Ends every exchange that was started.
  virtual void wait() = 0;
};

/// x [N, C], weights [N, K], indices i32 [N, K] of all E experts; gate_up [E / R, 2I, C] and down
/// [E / R, C, I] of this rank's experts, those from E / R * rank on -> [N, C]. `meanwhile` runs
/// while the rows are on their way. Throws ShapeError when E does not divide by the ranks.
Variable exchanged_experts(const Variable& x, const Variable& weights, const Tensor& indices,
                           const Variable& gate_up, const Variable& down, std::int64_t experts,
                           RowExchange& exchange, const std::function<void()>& meanwhile = {});

}  // namespace lectern
