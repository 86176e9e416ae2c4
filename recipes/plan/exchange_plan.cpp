#include "recipes/plan/exchange_plan.h"

#include <algorithm>

namespace lectern {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

double largest(const std::vector<double>& values) {
  return *std::max_element(values.begin(), values.end());
}

std::int64_t rank_of(const MeshShape& mesh, std::int64_t stage, std::int64_t replica) {
  return stage * mesh.dp + replica;
}

/// Groups of the replicas [0, dp) by key.
template <typename F>
std::vector<std::vector<std::int64_t>> groups_by(const MeshShape& mesh, std::int64_t stage,
                                                 std::int64_t count, F&& key) {
  std::vector<std::vector<std::int64_t>> out(at(count));
  for (std::int64_t replica = 0; replica < mesh.dp; ++replica)
    out[at(key(replica))].push_back(rank_of(mesh, stage, replica));
  return out;
}

}  // namespace

LinkCount::LinkCount(const Cluster& cluster)
    : cluster_(cluster),
      sent_(at(cluster.ranks()), 0),
      in_node_(at(cluster.ranks()), 0),
      leaving_(at(cluster.nodes), 0) {}

void LinkCount::send(std::int64_t from, std::int64_t to, double bytes) {
  if (from == to) return;
  const std::int64_t here = from / cluster_.per_node, there = to / cluster_.per_node;
  sent_[at(from)] += bytes;
  (here == there ? in_node_[at(from)] : leaving_[at(here)]) += bytes;
}

void LinkCount::collective(const std::vector<std::int64_t>& group, double bytes, bool direct) {
  const std::size_t ranks = group.size();
  const double part = bytes / static_cast<double>(ranks);
  for (std::size_t i = 0; i < ranks; ++i) {
    if (!direct) {
      send(group[i], group[(i + 1) % ranks], part * static_cast<double>(ranks - 1));
      continue;
    }
    for (std::size_t j = 0; j < ranks; ++j) send(group[i], group[j], part);
  }
}

LinkLoad LinkCount::load() const {
  LinkLoad out{largest(sent_), largest(in_node_), largest(leaving_), 0};
  for (const double bytes : sent_) out.total += bytes;
  return out;
}

std::vector<std::vector<std::int64_t>> data_groups(const MeshShape& mesh, std::int64_t stage) {
  return groups_by(mesh, stage, 1, [](std::int64_t) { return 0; });
}

std::vector<std::vector<std::int64_t>> replica_groups(const MeshShape& mesh, std::int64_t stage) {
  return groups_by(mesh, stage, mesh.ep, [&](std::int64_t replica) { return replica % mesh.ep; });
}

std::vector<std::vector<std::int64_t>> expert_groups(const MeshShape& mesh, std::int64_t stage) {
  return groups_by(mesh, stage, mesh.dp / mesh.ep,
                   [&](std::int64_t replica) { return replica / mesh.ep; });
}

LinkLoad pipeline_load(const Cluster& cluster, const MeshShape& mesh) {
  LinkLoad worst;
  for (std::int64_t stage = 0; stage + 1 < mesh.pp; ++stage) {
    LinkCount count(cluster);
    for (std::int64_t replica = 0; replica < mesh.dp; ++replica)
      count.send(rank_of(mesh, stage, replica), rank_of(mesh, stage + 1, replica), 1);
    const LinkLoad load = count.load();
    worst = {std::max(worst.sent, load.sent), std::max(worst.in_node, load.in_node),
             std::max(worst.leaving, load.leaving), std::max(worst.total, load.total)};
  }
  return worst;
}

LinkLoad expert_load(const Cluster& cluster, const MeshShape& mesh) {
  LinkCount count(cluster);
  for (std::int64_t stage = 0; stage < mesh.pp; ++stage)
    for (const auto& group : expert_groups(mesh, stage))
      for (const std::int64_t from : group)
        for (const std::int64_t to : group)
          count.send(from, to, 1.0 / static_cast<double>(group.size()));
  return count.load();
}

}  // namespace lectern
