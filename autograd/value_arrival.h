// Values of leaves that are still on their way, such as parameters that another rank has updated:
// whoever reads one first waits for it, and for no other.
#pragma once

namespace lectern {

struct VariableState;

class ValueArrival {
 public:
  virtual ~ValueArrival() = default;
  /// Returns when the leaf has its value.
  virtual void wait_for(VariableState* leaf) = 0;
};

/// The next Variable::value() of this leaf (Variable::state()) first calls arrival->wait_for(),
/// once. Null: the value is there. One thread may do so, the one that reads.
void expect_value(VariableState* leaf, ValueArrival* arrival);

}  // namespace lectern
