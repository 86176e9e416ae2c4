// Low-rank pairs beside the parameter of a linear layer, where an adapter (nn/adapter.h) puts them.
#pragma once

#include "autograd/ops/low_rank.h"

#include <cstdint>
#include <memory>
#include <string>

namespace lectern {

/// The pairs of a parameter's matrices; without any where `pairs` is undefined.
class LowRank {
 public:
  LowRankPairs pairs;
  double dropout = 0;  ///< of what A reads; only within a DropoutScope
  std::string name;    ///< of the parameter: names the dropout's random stream

  LowRank();
  ~LowRank();
  bool defined() const { return pairs.defined(); }
  /// linear() with the pairs.
  Variable linear(const Variable& x, const Variable& weight, const Variable& bias) const;
  /// The weight with its pairs, for operations that multiply by it themselves. While gradients are
  /// off the sum is kept until a, b or the weight changes: reading asks for it at every token.
  Variable merged(const Variable& weight) const;

 private:
  struct Kept;
  std::unique_ptr<Kept> kept_;
};

/// Dropout before low-rank pairs, on one thread: a micro-batch of training turns it on.
struct DropoutState {
  bool is_on = false;
  std::uint64_t seed = 0;
  /// Names the micro-batch, so that what is dropped depends on neither ranks nor threads.
  std::string stream;
};

/// Nothing is dropped outside a DropoutScope (validation, reading).
const DropoutState& dropout_state();

/// Sets the state of this thread while it lives. What runs again in backward takes the state along
/// (run_block()), and so drops the same.
class DropoutScope {
 public:
  explicit DropoutScope(DropoutState state);
  ~DropoutScope();
  DropoutScope(const DropoutScope&) = delete;
  DropoutScope& operator=(const DropoutScope&) = delete;

 private:
  DropoutState before_;
};

}  // namespace lectern
