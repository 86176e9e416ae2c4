#include "distributed/mesh.h"

#include "core/error.h"

#include <vector>

namespace lectern {
namespace {

std::vector<std::int64_t> divisors(std::int64_t n) {
  std::vector<std::int64_t> out;
  for (std::int64_t d = 1; d <= n; ++d)
    if (n % d == 0) out.push_back(d);
  return out;
}

/// The smallest number of ranks, at least `ranks`, that pp x (a multiple of ep) makes.
std::int64_t next_fit(std::int64_t ranks, std::int64_t pp, std::int64_t ep) {
  const std::int64_t step = pp * ep;
  return (ranks + step - 1) / step * step;
}

}  // namespace

MeshShape mesh_shape(std::int64_t ranks, std::int64_t pp, std::int64_t ep) {
  if (pp < 1 || ranks % pp != 0)
    fail<ConfigError>(fmt::format(
        "mesh.pp must divide the number of ranks = {}, got {}: with {} ranks it may be {}; with "
        "pp = {} and ep = {} start {} ranks",
        ranks, pp, ranks, fmt::join(divisors(ranks), ", "), pp, ep,
        pp < 1 || ep < 1 ? ranks : next_fit(ranks, pp, ep)));
  const std::int64_t dp = ranks / pp;
  if (ep < 1 || dp % ep != 0)
    fail<ConfigError>(fmt::format(
        "mesh.ep must divide the data-parallel ranks = {} (ranks / mesh.pp), got {}: with {} ranks "
        "and pp = {} it may be {}; with pp = {} and ep = {} start {} ranks",
        dp, ep, ranks, pp, fmt::join(divisors(dp), ", "), pp, ep,
        ep < 1 ? ranks : next_fit(ranks, pp, ep)));
  return {pp, dp, ep};
}

Mesh::Mesh(std::shared_ptr<Communicator> world, std::int64_t pp, std::int64_t ep)
    : world_(std::move(world)), shape_(mesh_shape(world_->size(), pp, ep)) {
  const int rank = world_->rank();
  const int experts = static_cast<int>(shape_.ep);
  data_ = world_->split(stage(), rank);
  pipeline_ = world_->split(replica(), rank);
  experts_ = data_->split(replica() / experts, rank);
  expert_replicas_ = data_->split(replica() % experts, rank);
  // In one order on all ranks, before anything waits for anything else.
  if (data_->size() > 1) data_->prepare();
  if (experts > 1) {
    experts_->prepare();
    if (expert_replicas_->size() > 1) expert_replicas_->prepare();
  }
  if (pipeline_->size() > 1) pipeline_->prepare_neighbours();
}

}  // namespace lectern
