#include "autograd/variable.h"

#include "autograd/backward_observer.h"
#include "autograd/compute_dtype.h"
#include "autograd/value_arrival.h"
#include "autograd/weights_constant.h"
#include "core/ops/accumulate.h"
#include "core/profile.h"

#include <algorithm>
#include <atomic>
#include <queue>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace lectern {

struct VariableState : std::enable_shared_from_this<VariableState> {
  Tensor value;
  Tensor grad;
  bool requires_grad = false;
  std::shared_ptr<GraphNode> node;  // null for leaves
  int output_index = 0;             // which output of `node` this is
  ValueArrival* arrival = nullptr;  // of a leaf whose value is not there yet
};

/// Where the gradient of an operation's input goes: to a leaf, to an output of another operation,
/// or nowhere. It holds no value: what backward needs of one is in the closures, and all else is
/// freed in the forward pass.
struct Edge {
  std::shared_ptr<VariableState> leaf;
  std::shared_ptr<GraphNode> node;
  int output_index = 0;
};

struct GraphNode {
  std::string_view operation;
  std::uint64_t sequence = 0;  // nodes run backwards in descending order of creation
  std::vector<Edge> inputs;
  std::vector<Shape> output_shapes;
  BackwardMany backward;
};

namespace {

thread_local bool grad_is_enabled = true;
thread_local bool will_run_again = false;  // within the first run of a segment of recompute()
thread_local BackwardObserver* backward_observer = nullptr;

std::uint64_t next_sequence() {
  static std::atomic<std::uint64_t> counter{0};
  return counter.fetch_add(1, std::memory_order_relaxed);
}

/// `sum` += `term`, where a sum that another tensor also refers to is replaced, never written.
void accumulate_grad(Tensor& sum, const Tensor& term) {
  if (!sum.defined()) {
    sum = term;
  } else if (sum.is_unique() && sum.is_contiguous()) {
    accumulate(sum, term);
  } else {
    Tensor fresh = sum.clone();
    accumulate(fresh, term);
    sum = std::move(fresh);
  }
}

Edge edge_to(const Variable& variable) {
  if (!variable.defined() || !variable.requires_grad()) return {};
  VariableState& state = *variable.state();
  if (state.node != nullptr) return {nullptr, state.node, state.output_index};
  return {state.shared_from_this(), nullptr, 0};
}

std::shared_ptr<GraphNode> make_node(std::string_view operation,
                                     const std::vector<Variable>& inputs, BackwardMany backward) {
  if (!grad_is_enabled) return nullptr;
  const bool needed = std::any_of(inputs.begin(), inputs.end(), [](const Variable& input) {
    return input.defined() && input.requires_grad();
  });
  if (!needed) return nullptr;
  auto node = std::make_shared<GraphNode>();
  node->operation = operation;
  node->sequence = next_sequence();
  for (const Variable& input : inputs) node->inputs.push_back(edge_to(input));
  node->backward = std::move(backward);
  return node;
}

/// The state of a variable that must have one.
VariableState& given(const std::shared_ptr<VariableState>& state) {
  if (state == nullptr) fail<Error>("Variable: used before it was given a value");
  return *state;
}

}  // namespace

Variable::Variable(Tensor value, bool requires_grad) : state_(std::make_shared<VariableState>()) {
  state_->value = std::move(value);
  state_->requires_grad = requires_grad;
}

const Tensor& Variable::value() const {
  VariableState& state = given(state_);
  if (state.arrival != nullptr) [[unlikely]]
    std::exchange(state.arrival, nullptr)->wait_for(&state);
  return state.value;
}

void expect_value(VariableState* leaf, ValueArrival* arrival) { leaf->arrival = arrival; }

bool Variable::requires_grad() const { return state_ != nullptr && state_->requires_grad; }

void Variable::set_requires_grad(bool requires_grad) {
  VariableState& state = given(state_);
  if (state.node != nullptr) fail<Error>("Variable: only a leaf can be frozen or unfrozen");
  state.requires_grad = requires_grad;
  if (!requires_grad) clear_grad();
}

const Tensor& Variable::grad() const { return given(state_).grad; }
void Variable::set_grad(Tensor grad) { given(state_).grad = std::move(grad); }
void Variable::clear_grad() { given(state_).grad = Tensor(); }
Variable Variable::detach() const { return Variable(value()); }

void Variable::set_value(Tensor value) {
  VariableState& state = given(state_);
  check_shape(value, state.value.shape(), "Variable", "new value");
  check_dtype(value, state.value.dtype(), "Variable", "new value");
  state.value = std::move(value);
}

Variable record(std::string_view operation, Tensor value, std::vector<Variable> inputs,
                Backward backward) {
  profile_mark("forward ", operation);
  Variable out(std::move(value));
  auto node = make_node(operation, inputs,
                        [backward = std::move(backward)](const std::vector<Tensor>& grads) {
                          return backward(grads[0]);
                        });
  if (node != nullptr) {
    node->output_shapes = {out.shape()};
    out.state_->node = std::move(node);
    out.state_->requires_grad = true;
  }
  return out;
}

std::vector<Variable> record_many(std::string_view operation, std::vector<Tensor> values,
                                  std::vector<Variable> inputs, BackwardMany backward) {
  profile_mark("forward ", operation);
  std::vector<Variable> out;
  for (Tensor& value : values) out.emplace_back(std::move(value));
  auto node = make_node(operation, inputs, std::move(backward));
  if (node == nullptr) return out;
  for (std::size_t i = 0; i < out.size(); ++i) {
    node->output_shapes.push_back(out[i].shape());
    out[i].state_->node = node;
    out[i].state_->output_index = static_cast<int>(i);
    out[i].state_->requires_grad = true;
  }
  return out;
}

ObserveBackward::ObserveBackward(BackwardObserver* observer)
    : previous_(std::exchange(backward_observer, observer)) {}
ObserveBackward::~ObserveBackward() { backward_observer = previous_; }

bool grad_enabled() { return grad_is_enabled; }
bool weights_are_constant() { return !grad_is_enabled && !will_run_again; }
NoGrad::NoGrad() : previous_(std::exchange(grad_is_enabled, false)) {}
NoGrad::~NoGrad() { grad_is_enabled = previous_; }

namespace {

/// One backward pass: nodes wait in order of creation, newest first, which is a topological order
/// because an operation is always created after its inputs.
class BackwardPass {
 public:
  void add(const Edge& edge, const Tensor& grad) {
    if (edge.leaf != nullptr) {
      // A leaf that was frozen since the forward pass takes no gradient.
      if (!edge.leaf->requires_grad) return;
      check_shape(grad, edge.leaf->value.shape(), "backward", "gradient of a leaf");
      add_to_leaf(*edge.leaf, grad);
      return;
    }
    if (edge.node == nullptr) return;
    auto [entry, is_new] = grads_.try_emplace(edge.node.get());
    if (is_new) {
      entry->second.resize(edge.node->output_shapes.size());
      waiting_.push(edge.node);
    }
    accumulate_grad(entry->second[static_cast<std::size_t>(edge.output_index)], grad);
  }

  void run() {
    while (!waiting_.empty()) {
      const std::shared_ptr<GraphNode> node = waiting_.top();
      waiting_.pop();
      std::vector<Tensor> grads = std::move(grads_.at(node.get()));
      grads_.erase(node.get());
      run_node(*node, std::move(grads));
    }
  }

  /// Nothing may write to this tensor: a leaf that would get it as its gradient gets a copy.
  void protect(const Tensor& tensor) { given_.insert(tensor.storage().get()); }

  /// Counts how often the graph behind `root` leads to each leaf, to know when its gradient is
  /// complete. A recomputed segment counts by the parameters that it names.
  void count_uses(const Edge& root) {
    std::unordered_set<const GraphNode*> seen;
    std::vector<const GraphNode*> open;
    const auto follow = [&](const Edge& edge) {
      if (edge.leaf != nullptr) ++uses_[edge.leaf.get()];
      if (edge.node != nullptr && seen.insert(edge.node.get()).second)
        open.push_back(edge.node.get());
    };
    follow(root);
    while (!open.empty()) {
      const GraphNode* node = open.back();
      open.pop_back();
      for (const Edge& edge : node->inputs) follow(edge);
    }
  }

 private:
  /// An operation may hand one tensor to several inputs (a sum does). Each leaf must own what it
  /// keeps, because gradients are scaled in place when they are clipped.
  void add_to_leaf(VariableState& state, const Tensor& grad) {
    const bool is_first = !state.grad.defined();
    accumulate_grad(state.grad, grad);
    if (is_first && !given_.insert(grad.storage().get()).second) state.grad = grad.clone();
  }

  struct Older {
    bool operator()(const std::shared_ptr<GraphNode>& a,
                    const std::shared_ptr<GraphNode>& b) const {
      return a->sequence < b->sequence;
    }
  };

  void run_node(GraphNode& node, std::vector<Tensor> grads) {
    if (node.backward == nullptr)
      fail<Error>(
          fmt::format("backward: the graph of {} was already run and freed", node.operation));
    std::vector<Tensor> input_grads;
    {
      const NoGrad off;
      profile_mark("backward ", "(adding gradients)");
      input_grads = node.backward(grads);
      profile_mark("backward ", node.operation);
    }
    grads.clear();
    node.backward = nullptr;  // frees the activations it held
    const std::vector<Edge> inputs = std::move(node.inputs);
    node.inputs.clear();
    if (input_grads.size() != inputs.size())
      fail<Error>(fmt::format("backward: {} gave {} gradients for {} inputs", node.operation,
                              input_grads.size(), inputs.size()));
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      Tensor grad = std::move(input_grads[i]);
      if (grad.defined()) add(inputs[i], grad);
    }
    if (backward_observer == nullptr) return;
    for (const Edge& input : inputs) report_use(input);
    backward_observer->operation_done();
  }

  /// One of the ways to a leaf has been gone, if uses are counted.
  void report_use(const Edge& edge) {
    if (edge.leaf == nullptr) return;
    const auto found = uses_.find(edge.leaf.get());
    if (found != uses_.end() && --found->second == 0)
      backward_observer->gradient_complete(edge.leaf.get());
  }

  std::unordered_map<GraphNode*, std::vector<Tensor>> grads_;
  std::unordered_set<const Storage*> given_;  // memory that a leaf keeps or that the caller owns
  std::unordered_map<VariableState*, int> uses_;
  std::priority_queue<std::shared_ptr<GraphNode>, std::vector<std::shared_ptr<GraphNode>>, Older>
      waiting_;
};

}  // namespace

void Variable::backward(Tensor cotangent) const {
  if (!requires_grad()) fail<Error>("backward: nothing in this graph requires a gradient");
  if (!cotangent.defined()) {
    if (value().numel() != 1)
      fail<ShapeError>(
          fmt::format("backward: without a cotangent the value must have one element, got {}",
                      value().describe()));
    cotangent = Tensor::full(shape(), 1.0, dtype());
  }
  cotangent = cotangent.to(value().device());
  check_shape(cotangent, shape(), "backward", "cotangent");
  BackwardPass pass;
  pass.protect(cotangent);
  if (backward_observer != nullptr) pass.count_uses(edge_to(*this));
  pass.add(edge_to(*this), cotangent);
  pass.run();
}

namespace {

/// The opposite of NoGrad, inside one.
struct Recording {
  Recording() : outer(std::exchange(grad_is_enabled, true)) {}
  ~Recording() { grad_is_enabled = outer; }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  bool outer;
};

/// Marks the first run of a segment; one may run within another.
struct FirstRun {
  FirstRun() : outer(std::exchange(will_run_again, true)) {}
  ~FirstRun() { will_run_again = outer; }
  FirstRun(const FirstRun&) = delete;
  FirstRun& operator=(const FirstRun&) = delete;
  bool outer;
};

}  // namespace

std::vector<Variable> recompute(
    const std::function<std::vector<Variable>(const std::vector<Variable>&)>& segment,
    const std::vector<Variable>& inputs, const std::vector<Variable>& parameters) {
  if (!grad_enabled()) return segment(inputs);
  std::vector<Tensor> values;
  {
    const NoGrad off;
    const FirstRun first;
    for (const Variable& output : segment(inputs)) values.push_back(output.value());
  }
  std::vector<Variable> all = inputs;
  all.insert(all.end(), parameters.begin(), parameters.end());
  const std::size_t parameter_count = parameters.size();
  return record_many("recompute", std::move(values), std::move(all),
                     [segment, inputs, parameter_count,
                      dtype = compute_dtype()](const std::vector<Tensor>& grads) {
                       const ComputeDType same(dtype);
                       std::vector<Variable> leaves;
                       {
                         const Recording on;  // the engine runs closures inside NoGrad
                         for (const Variable& input : inputs)
                           leaves.emplace_back(input.value(), input.requires_grad());
                         const std::vector<Variable> outputs = segment(leaves);
                         BackwardPass pass;
                         for (std::size_t i = 0; i < outputs.size(); ++i)
                           if (grads[i].defined()) pass.add(edge_to(outputs[i]), grads[i]);
                         pass.run();
                       }
                       std::vector<Tensor> result;
                       for (const Variable& leaf : leaves) result.push_back(leaf.grad());
                       // Parameters are leaves: the inner pass has accumulated into them already.
                       result.resize(result.size() + parameter_count);
                       return result;
                     });
}

}  // namespace lectern
