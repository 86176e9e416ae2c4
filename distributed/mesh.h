// The mesh pp x dp of ranks, with ep dividing dp.
//
//   rank = stage * dp + replica            stage of the pipeline, place in the data-parallel group
//   replica = expert_block * ep + expert   ranks of a block hold different routed experts
//
// Neighbouring ranks, which usually share a host, are in one data-parallel group, where most is
// exchanged; only activations travel between stages.
#pragma once

#include "distributed/communicator.h"

#include <cstdint>
#include <memory>
#include <string>

namespace lectern {

struct MeshShape {
  std::int64_t pp = 1;  ///< stages of the pipeline
  std::int64_t dp = 1;  ///< data-parallel ranks of each stage
  std::int64_t ep = 1;  ///< of these, neighbours that share one set of routed experts
};

/// The mesh of `ranks` ranks with pp stages. Throws ConfigError, which names the meshes that fit,
/// unless pp divides the ranks and ep the ranks / pp that are left.
MeshShape mesh_shape(std::int64_t ranks, std::int64_t pp, std::int64_t ep);

class Mesh {
 public:
  /// Collective over `world`. Throws as mesh_shape().
  Mesh(std::shared_ptr<Communicator> world, std::int64_t pp, std::int64_t ep);

  const MeshShape& shape() const { return shape_; }
  int stage() const { return static_cast<int>(world_->rank() / shape_.dp); }
  int replica() const { return static_cast<int>(world_->rank() % shape_.dp); }

  Communicator& world() const { return *world_; }
  /// Ranks with the same part of the model but for routed experts, in order of replica().
  const std::shared_ptr<Communicator>& data() const { return data_; }
  /// One rank of each stage, in order of stage().
  const std::shared_ptr<Communicator>& pipeline() const { return pipeline_; }
  /// Ranks that share one set of routed experts, in order of replica().
  const std::shared_ptr<Communicator>& experts() const { return experts_; }
  /// Ranks that hold the same routed experts.
  const std::shared_ptr<Communicator>& expert_replicas() const { return expert_replicas_; }

 private:
  std::shared_ptr<Communicator> world_;
  MeshShape shape_;
  std::shared_ptr<Communicator> data_, pipeline_, experts_, expert_replicas_;
};

}  // namespace lectern
