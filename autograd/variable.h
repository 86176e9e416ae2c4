// Variable: a Tensor that remembers how it was made, so that backward() can walk the graph.
//
// An operation in autograd/ops/ computes its value with core/ops/ and calls record() with its
// inputs and a closure that turns the gradient of its output into the gradients of its inputs. The
// closure holds what backward needs and is dropped as soon as it has run.
#pragma once

#include "core/tensor.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

namespace lectern {

struct GraphNode;
struct VariableState;

class Variable {
 public:
  Variable() = default;
  /// A leaf. With `requires_grad`, backward() accumulates into grad().
  explicit Variable(Tensor value, bool requires_grad = false);

  bool defined() const { return state_ != nullptr; }
  const Tensor& value() const;
  const Shape& shape() const { return value().shape(); }
  std::int64_t dim(int i) const { return value().dim(i); }
  DType dtype() const { return value().dtype(); }

  /// True when a gradient flows to this variable: a leaf that asked for it, or a result of one.
  bool requires_grad() const;
  /// Leaves only: freeze or unfreeze a parameter.
  void set_requires_grad(bool requires_grad);

  /// Accumulated gradient of a leaf, same shape as value(); undefined before the first backward().
  const Tensor& grad() const;
  void set_grad(Tensor grad);
  void clear_grad();

  /// The same value outside the graph.
  Variable detach() const;
  /// Replaces a leaf's value (loading a checkpoint). Shape and dtype must stay.
  void set_value(Tensor value);

  /// Runs the graph backwards from this variable and frees it. Without a cotangent the variable
  /// must have one element, whose gradient is 1. The cotangent may be on the CPU.
  void backward(Tensor cotangent = {}) const;

  VariableState* state() const { return state_.get(); }

 private:
  friend Variable record(std::string_view, Tensor, std::vector<Variable>,
                         std::function<std::vector<Tensor>(const Tensor&)>);
  friend std::vector<Variable> record_many(
      std::string_view, std::vector<Tensor>, std::vector<Variable>,
      std::function<std::vector<Tensor>(const std::vector<Tensor>&)>);
  std::shared_ptr<VariableState> state_;
};

/// Gradient of the output -> gradients of the inputs, in their order. An undefined Tensor stands
/// for "no gradient" (the input does not require it, or it is zero).
using Backward = std::function<std::vector<Tensor>(const Tensor& grad_output)>;
/// As Backward, for an operation with several outputs; an undefined grad_outputs[i] means zero.
using BackwardMany = std::function<std::vector<Tensor>(const std::vector<Tensor>& grad_outputs)>;

/// Makes the output variable of an operation. When gradients are off, or no input requires one, the
/// closure is dropped and the output is a constant.
Variable record(std::string_view operation, Tensor value, std::vector<Variable> inputs,
                Backward backward);
std::vector<Variable> record_many(std::string_view operation, std::vector<Tensor> values,
                                  std::vector<Variable> inputs, BackwardMany backward);

/// False inside a NoGrad scope of this thread.
bool grad_enabled();

/// While it lives, operations of this thread record nothing.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool previous_;
};

/// Runs `segment` without recording and keeps only its inputs; backward runs it again to have the
/// graph (activation recomputation). `segment` must be a pure function of `inputs` and of leaf
/// parameters; name the parameters it reads in `parameters` so that their gradients flow.
std::vector<Variable> recompute(
    const std::function<std::vector<Variable>(const std::vector<Variable>&)>& segment,
    const std::vector<Variable>& inputs, const std::vector<Variable>& parameters);

}  // namespace lectern
