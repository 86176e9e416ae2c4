// Silent divergence: ranks that should hold the same values and do not, because a bit was flipped
// in memory or on the way, or because their machines compute differently.
#pragma once

#include "distributed/communicator.h"

#include <cstdint>
#include <string>

namespace lectern {

/// Compares a fingerprint of what all ranks of `replicas` must hold alike. Throws RankError on
/// every rank, naming the ranks that differ from most (from the first, where there is no most).
/// Collective.
void check_replicas(Communicator& replicas, const std::string& fingerprint, std::int64_t step);

}  // namespace lectern
