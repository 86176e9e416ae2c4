// How many bytes cross which link when the ranks of a mesh (distributed/mesh.h) exchange something,
// and how long that takes. Ranks fill the nodes in their order.
#pragma once

#include "distributed/mesh.h"
#include "recipes/plan/hardware.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace lectern {

struct Cluster {
  std::int64_t nodes = 1, per_node = 1;
  std::int64_t ranks() const { return nodes * per_node; }
};

/// Bytes of one kind of exchange.
struct LinkLoad {
  double sent = 0;     ///< by the rank that sends most
  double in_node = 0;  ///< by the rank that sends most to others of its node
  double leaving = 0;  ///< of the node that sends most to other nodes
  double total = 0;    ///< over all ranks

  /// Links full duplex; ranks of a node share its network.
  double seconds(const Hardware& hardware) const {
    return std::max(in_node / hardware.link_rate, leaving / hardware.network_rate) / hardware.link;
  }
  LinkLoad operator*(double factor) const {
    return {sent * factor, in_node * factor, leaving * factor, total * factor};
  }
};

/// Adds up who sends how much to whom.
class LinkCount {
 public:
  explicit LinkCount(const Cluster& cluster);
  void send(std::int64_t from, std::int64_t to, double bytes);
  /// A reduce-scatter or an all-gather of `bytes` over a group: each rank sends (R - 1) / R of
  /// them, to the next rank of a ring, or in equal parts to all others.
  void collective(const std::vector<std::int64_t>& group, double bytes, bool direct);
  LinkLoad load() const;

 private:
  Cluster cluster_;
  std::vector<double> sent_, in_node_, leaving_;
};

/// Ranks of the groups of Mesh, all of them: data() and expert_replicas() of each stage, experts().
std::vector<std::vector<std::int64_t>> data_groups(const MeshShape& mesh, std::int64_t stage);
std::vector<std::vector<std::int64_t>> replica_groups(const MeshShape& mesh, std::int64_t stage);
std::vector<std::vector<std::int64_t>> expert_groups(const MeshShape& mesh, std::int64_t stage);

/// One rank of every pair of neighbouring stages, for a byte: activations, the slowest pair.
LinkLoad pipeline_load(const Cluster& cluster, const MeshShape& mesh);
/// Every rank of a stage sends a byte, in equal parts to the ranks that share its experts and to
/// itself; what goes to itself counts nowhere.
LinkLoad expert_load(const Cluster& cluster, const MeshShape& mesh);

}  // namespace lectern
