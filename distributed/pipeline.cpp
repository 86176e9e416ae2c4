#include "distributed/pipeline.h"

#include "core/error.h"
#include "core/stopwatch.h"

#include <cstddef>
#include <span>
#include <string>

namespace lectern {
namespace {

// Messages of one direction and chunk have tags of their own; within one, micro-batches come in
// order on both sides. The head of a message says what its tensors are.
enum Message : int { kForwardHead, kForwardTensor, kBackwardTensor, kMessages };
int tag_of(Message message, std::int64_t chunk) {
  return static_cast<int>(chunk) * kMessages + message;
}

/// i64: number of tensors, then for each: defined, dtype, takes a gradient, dimensions, their
/// sizes.
constexpr std::int64_t kFields = 4 + Shape::kMaxDims;
constexpr std::int64_t kHead = 1 + static_cast<std::int64_t>(PipelineOutput::kMost) * kFields;

/// Sends that a rank may have on the way before it waits for the oldest; bounds the memory of a
/// frozen stage, which nothing else holds back.
std::size_t most_sends(std::int64_t stages) {
  return static_cast<std::size_t>(2 * stages) * (1 + PipelineOutput::kMost);
}

Tensor head_of(const std::vector<Streams>& tensors) {
  if (tensors.size() > PipelineOutput::kMost)
    fail<ShapeError>(fmt::format("pipeline: a stage may give at most {} tensors, got {}",
                                 PipelineOutput::kMost, tensors.size()));
  const Tensor head = Tensor::zeros({kHead}, DType::i64);
  std::int64_t* at = head.data<std::int64_t>();
  *at++ = static_cast<std::int64_t>(tensors.size());
  for (const Streams& tensor : tensors) {
    if (tensor.graph.defined()) {
      const Shape& shape = tensor.value.shape();
      at[0] = 1;
      at[1] = static_cast<std::int64_t>(tensor.value.dtype());
      at[2] = tensor.graph.requires_grad() ? 1 : 0;
      at[3] = shape.ndim();
      for (int i = 0; i < shape.ndim(); ++i) at[4 + i] = shape[i];
    }
    at += kFields;
  }
  return head;
}

}  // namespace

/// A micro-batch between forward and backward: where its gradients come in and go out.
struct Pipeline::Pending {
  std::vector<Variable> inputs;
  /// Of the outputs that take a gradient, in their order: shape and dtype for the message, and the
  /// gradient once it is there. Shared with the root's closure.
  std::shared_ptr<std::vector<Tensor>> gradients = std::make_shared<std::vector<Tensor>>();
  std::vector<std::pair<Shape, DType>> outputs;
  /// Takes no part in the model: its backward hands `gradients` to the outputs and 1 to the
  /// objective, all in one pass, since a graph can be run only once.
  Variable root;
};

Pipeline::Pipeline(std::shared_ptr<Communicator> group, const PipelineShape& shape, Device device)
    : group_(std::move(group)), shape_(shape), device_(device) {
  if (shape.stages != group_->size())
    fail<ConfigError>(fmt::format("pipeline: {} stages need as many ranks, got {}", shape.stages,
                                  group_->size()));
  if (shape.stages == 1 && shape.chunks > 1)
    fail<ConfigError>(fmt::format("pipeline: one rank must hold one chunk, got {}", shape.chunks));
  tasks_ = pipeline_schedule(shape, group_->rank());
}

Pipeline::~Pipeline() = default;

void Pipeline::send(const Tensor& tensor, int to, int tag) {
  if (tensor.numel() == 0) return;
  if (sends_.size() >= most_sends(shape_.stages)) {
    const double begin = now();
    sends_.front().wait();
    sends_.pop_front();
    wait_ += now() - begin;
  }
  sends_.push_back(group_->start_send(tensor.contiguous(), to, tag));
}

void Pipeline::send_outputs(std::int64_t chunk, const std::vector<Streams>& tensors) {
  const int next = (group_->rank() + 1) % group_->size();
  const std::int64_t at_next = group_->rank() + 1 < group_->size() ? chunk : chunk + 1;
  send(head_of(tensors), next, tag_of(kForwardHead, at_next));
  for (const Streams& tensor : tensors)
    if (tensor.graph.defined()) send(tensor.value, next, tag_of(kForwardTensor, at_next));
}

std::vector<Variable> Pipeline::receive_inputs(std::int64_t chunk) {
  const int from = (group_->rank() + group_->size() - 1) % group_->size();
  const double begin = now();
  const Tensor head = Tensor::empty({kHead}, DType::i64);
  group_->receive(head, from, tag_of(kForwardHead, chunk));
  const std::int64_t* at = head.data<std::int64_t>();
  std::vector<Variable> inputs(static_cast<std::size_t>(*at++));
  for (Variable& input : inputs) {
    if (at[0] != 0) {
      const Shape shape(std::span<const std::int64_t>(at + 4, static_cast<std::size_t>(at[3])));
      const Tensor value = Tensor::empty(shape, static_cast<DType>(at[1]), device_);
      if (value.numel() > 0) group_->receive(value, from, tag_of(kForwardTensor, chunk));
      input = Variable(value, at[2] != 0);
    }
    at += kFields;
  }
  wait_ += now() - begin;
  return inputs;
}

void Pipeline::forward(const PipelineTask& task, PipelineModel& model) {
  auto pending = std::make_unique<Pending>();
  if (!is_first(task.chunk)) pending->inputs = receive_inputs(task.chunk);
  PipelineOutput out = model.forward(task.chunk, task.micro_batch, pending->inputs);
  if (is_last(task.chunk) != out.tensors.empty())
    fail<Error>(fmt::format("pipeline: chunk {} of rank {} gave {} tensors", task.chunk,
                            group_->rank(), out.tensors.size()));
  std::vector<Variable> roots;
  for (const Streams& tensor : out.tensors) {
    if (!tensor.graph.defined() || !tensor.graph.requires_grad()) continue;
    roots.push_back(tensor.graph);
    pending->outputs.emplace_back(tensor.value.shape(), tensor.value.dtype());
  }
  const std::size_t received = roots.size();
  if (out.objective.defined() && out.objective.requires_grad()) roots.push_back(out.objective);
  const Shape objective = out.objective.defined() ? out.objective.shape() : Shape{};
  const DType dtype = out.objective.defined() ? out.objective.dtype() : DType::f32;
  const Device device = out.objective.defined() ? out.objective.value().device() : device_;
  pending->root = record("pipeline", Tensor::zeros({}, dtype, device), roots,
                         [gradients = pending->gradients, objective, dtype, device, received,
                          count = roots.size()](const Tensor&) {
                           std::vector<Tensor> out = std::move(*gradients);
                           if (count > received)
                             out.push_back(Tensor::full(objective, 1, dtype, device));
                           return out;
                         });
  if (!is_last(task.chunk)) send_outputs(task.chunk, out.tensors);
  // Without a backward (a frozen stage) nothing is kept.
  if (task.chunk * shape_.stages + group_->rank() >= shape_.first_trained)
    pending_[{task.chunk, task.micro_batch}] = std::move(pending);
}

void Pipeline::backward(const PipelineTask& task) {
  const std::unique_ptr<Pending> pending =
      std::move(pending_.extract({task.chunk, task.micro_batch}).mapped());
  if (!pending->outputs.empty()) {
    const double begin = now();
    const int next = (group_->rank() + 1) % group_->size();
    for (const auto& [shape, dtype] : pending->outputs) {
      pending->gradients->push_back(Tensor::empty(shape, dtype, device_));
      const Tensor& gradient = pending->gradients->back();
      if (gradient.numel() > 0)
        group_->receive(gradient, next, tag_of(kBackwardTensor, task.chunk));
    }
    wait_ += now() - begin;
  }
  if (pending->root.requires_grad()) pending->root.backward();
  const int previous = (group_->rank() + group_->size() - 1) % group_->size();
  const std::int64_t at_previous = group_->rank() > 0 ? task.chunk : task.chunk - 1;
  for (const Variable& input : pending->inputs) {
    if (!input.defined() || !input.requires_grad()) continue;
    const Tensor gradient =
        input.grad().defined() ? input.grad() : Tensor::zeros_like(input.value());
    send(gradient, previous, tag_of(kBackwardTensor, at_previous));
  }
}

void Pipeline::step(PipelineModel& model) {
  spans_.clear();
  pending_.clear();
  const double start = now();
  for (const PipelineTask& task : tasks_) {
    const double begin = now();
    wait_ = 0;
    if (task.action == PipelineAction::forward)
      forward(task, model);
    else
      backward(task);
    while (!sends_.empty() && sends_.front().test()) sends_.pop_front();
    group_->progress();
    // Waiting comes first in a task, but for the rare full queue of sends.
    spans_.push_back({group_->rank(), task, begin + wait_ - start, now() - start});
  }
  for (Handle& handle : sends_) handle.wait();
  sends_.clear();
}

}  // namespace lectern
