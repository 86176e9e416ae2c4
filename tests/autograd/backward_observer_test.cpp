#include "autograd/backward_observer.h"

#include "autograd/ops/elementwise.h"
#include "autograd/ops/reduce.h"
#include "autograd/variable.h"
#include "tests/testing.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

namespace lectern {
namespace {

using Variables = std::vector<Variable>;

/// Names of leaves in the order in which their gradients were complete, each with the gradient that
/// it had then; "." for an operation.
class Recorder : public BackwardObserver {
 public:
  void name(const std::string& name, const Variable& leaf) {
    names_[leaf.state()] = name;
    leaves_[leaf.state()] = leaf;
  }
  void gradient_complete(VariableState* leaf) override {
    events.push_back(names_.contains(leaf) ? names_[leaf] : "?");
    if (leaves_.contains(leaf)) at_completion[names_[leaf]] = leaves_[leaf].grad().item();
  }
  void operation_done() override { events.emplace_back("."); }

  std::vector<std::string> leaves() const {
    std::vector<std::string> out;
    for (const std::string& event : events)
      if (event != ".") out.push_back(event);
    return out;
  }

  std::vector<std::string> events;
  std::map<std::string, double> at_completion;

 private:
  std::map<VariableState*, std::string> names_;
  std::map<VariableState*, Variable> leaves_;
};

Variable scalar_leaf(double value, bool requires_grad = true) {
  return Variable(Tensor::full({1}, value), requires_grad);
}

TEST(BackwardObserver, LeavesCompleteFromTheEndAndOnceWhenUsedTwice) {
  const Variable a = scalar_leaf(2), b = scalar_leaf(3), c = scalar_leaf(5);
  Recorder recorder;
  recorder.name("a", a);
  recorder.name("b", b);
  recorder.name("c", c);
  const Variable y = multiply(multiply(multiply(a, b), c), b);  // a b c b
  {
    const ObserveBackward scope(&recorder);
    sum(y).backward();
  }
  EXPECT_EQ(recorder.leaves(), (std::vector<std::string>{"c", "a", "b"}));
  EXPECT_EQ(recorder.at_completion["a"], 45);
  EXPECT_EQ(recorder.at_completion["b"], 60);
  EXPECT_EQ(recorder.at_completion["c"], 18);
  EXPECT_EQ(std::count(recorder.events.begin(), recorder.events.end(), "."), 4);
}

TEST(BackwardObserver, HearsNothingOutsideItsScope) {
  const Variable a = scalar_leaf(2);
  Recorder recorder;
  { const ObserveBackward scope(&recorder); }
  sum(scale(a, 2)).backward();
  {
    const ObserveBackward scope(&recorder);
    const ObserveBackward none(nullptr);
    sum(scale(a, 2)).backward();
  }
  EXPECT_TRUE(recorder.events.empty());
  EXPECT_EQ(a.grad().item(), 4);
}

/// What a recomputed segment names is complete when the segment has run, not when a part of it has.
TEST(BackwardObserver, ParametersOfARecomputedSegment) {
  const Variable x = scalar_leaf(2), w = scalar_leaf(3), v = scalar_leaf(7);
  Recorder recorder;
  recorder.name("x", x);
  recorder.name("w", w);
  recorder.name("v", v);
  const auto segment = [&](const Variables& in) -> Variables {
    return {multiply(multiply(in[0], w), w)};
  };
  const Variable once = recompute(segment, {x}, {w})[0];
  const Variable twice = recompute(segment, {multiply(once, v)}, {w})[0];
  {
    const ObserveBackward scope(&recorder);
    sum(twice).backward();
  }
  EXPECT_EQ(recorder.leaves(), (std::vector<std::string>{"v", "x", "w"}));
  EXPECT_EQ(recorder.at_completion["x"], 81 * 7);
  EXPECT_EQ(recorder.at_completion["w"], 2 * 7 * 4 * 27);
}

TEST(BackwardObserver, ALeafBehindAnOperationWithoutAGradientIsNotReported) {
  const Variable a = scalar_leaf(2), b = scalar_leaf(3);
  Recorder recorder;
  recorder.name("a", a);
  recorder.name("b", b);
  const Variable dead = scale(b, 2);
  const Variable y = record("first only", Tensor::full({1}, 1.0), {scale(a, 2), dead},
                            [](const Tensor& g) -> std::vector<Tensor> {
                              return {g, Tensor()};
                            });
  {
    const ObserveBackward scope(&recorder);
    sum(y).backward();
  }
  EXPECT_EQ(recorder.leaves(), (std::vector<std::string>{"a"}));
  EXPECT_FALSE(b.grad().defined());
}

}  // namespace
}  // namespace lectern
