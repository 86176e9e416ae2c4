// Hearing of a backward pass while it runs: many ranks send a gradient on its way as soon as
// nothing more will be added to it, while the rest of the pass still computes.
#pragma once

namespace lectern {

struct VariableState;

class BackwardObserver {
 public:
  virtual ~BackwardObserver() = default;
  /// Nothing of this pass will add to the gradient of this leaf (Variable::state()) any more. Not
  /// called for a leaf that an operation without a gradient leads to: look for those at the end.
  virtual void gradient_complete(VariableState* leaf) = 0;
  /// An operation's backward has run, inside a recomputed segment too.
  virtual void operation_done() {}
};

/// While it lives, Variable::backward() of this thread reports to `observer`.
class ObserveBackward {
 public:
  explicit ObserveBackward(BackwardObserver* observer);
  ~ObserveBackward();
  ObserveBackward(const ObserveBackward&) = delete;
  ObserveBackward& operator=(const ObserveBackward&) = delete;

 private:
  BackwardObserver* previous_;
};

}  // namespace lectern
