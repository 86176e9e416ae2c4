// Runs one step of a pipeline on this rank: forwards and backwards of its micro-batches in the
// order of the schedule, activations and their gradients to and from the neighbours.
//
// Micro-batches may differ in shape: every message says what follows. Sends go on behind the next
// tasks; a rank that is ahead keeps a bounded number of them. Gradients of parameters add up over
// the micro-batches in their order, so the result does not depend on timing.
#pragma once

#include "autograd/ops/streams.h"
#include "distributed/communicator.h"
#include "distributed/pipeline_schedule.h"

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

namespace lectern {

/// What a chunk's forward gives.
struct PipelineOutput {
  /// For the next stage, at most kMost; an element may be undefined. Empty in the last stage.
  std::vector<Streams> tensors;
  /// Scalar that backward starts from besides the gradients of `tensors`: the loss in the last
  /// stage, a router's balance loss elsewhere. May be undefined.
  Variable objective;

  static constexpr std::size_t kMost = 4;
};

/// The model, as the pipeline sees it.
class PipelineModel {
 public:
  virtual ~PipelineModel() = default;
  /// Forward of one chunk of this rank. `inputs` are the previous stage's tensors, as leaves that
  /// take a gradient where the sender's did; empty in the first stage.
  virtual PipelineOutput forward(std::int64_t chunk, std::int64_t micro_batch,
                                 const std::vector<Variable>& inputs) = 0;
};

class Pipeline {
 public:
  /// `group`: the ranks of one pipeline, rank = stage. Throws ConfigError when shape.stages is not
  /// its size, or for what pipeline_schedule() refuses.
  /// Activations live on `device`.
  Pipeline(std::shared_ptr<Communicator> group, const PipelineShape& shape, Device device = {});
  ~Pipeline();

  const PipelineShape& shape() const { return shape_; }
  /// All micro-batches of one step; returns when this rank's part, sends included, is done.
  void step(PipelineModel& model);
  /// When the tasks of the last step ran on this rank, in seconds from its first; waiting for a
  /// neighbour is between tasks, not in them.
  const std::vector<PipelineSpan>& spans() const { return spans_; }

 private:
  struct Pending;
  using Key = std::pair<std::int64_t, std::int64_t>;  // chunk, micro-batch

  void forward(const PipelineTask& task, PipelineModel& model);
  void backward(const PipelineTask& task);
  std::vector<Variable> receive_inputs(std::int64_t chunk);
  void send_outputs(std::int64_t chunk, const std::vector<Streams>& tensors);
  void send(const Tensor& tensor, int to, int tag);
  bool is_first(std::int64_t chunk) const { return chunk == 0 && group_->rank() == 0; }
  bool is_last(std::int64_t chunk) const {
    return chunk + 1 == shape_.chunks && group_->rank() + 1 == group_->size();
  }

  std::shared_ptr<Communicator> group_;
  PipelineShape shape_;
  Device device_;
  std::vector<PipelineTask> tasks_;
  std::map<Key, std::unique_ptr<Pending>> pending_;  // between forward and backward
  std::deque<Handle> sends_;
  std::vector<PipelineSpan> spans_;
  double wait_ = 0;  // seconds that the task at hand has waited for messages
};

}  // namespace lectern
