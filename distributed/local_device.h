// Which GPU each rank of a host takes.
#pragma once

#include "distributed/communicator.h"

#include <cstddef>
#include <string>
#include <vector>

namespace lectern {

/// Index, among the devices that rank `self` of a host sees, of the one it takes. `seen`: by each
/// rank of the host in their order, names that tell devices apart (PCI addresses), in the order of
/// their indices. In turn, every rank takes the first that none before it took: the k-th rank
/// device k where all see all, its own where a launcher shows each rank one. Throws ConfigError
/// naming ranks and devices when one is left without.
int device_of_rank(const std::vector<std::vector<std::string>>& seen, std::size_t self,
                   const std::string& host);

/// The same for this rank, which sees `devices`, among the ranks of `world` on its host.
/// Collective.
int assign_device(Communicator& world, const std::vector<std::string>& devices);

}  // namespace lectern
