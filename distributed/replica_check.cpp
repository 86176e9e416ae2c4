#include "distributed/replica_check.h"

#include "distributed/groups.h"
#include "distributed/world.h"

#include <map>
#include <vector>

namespace lectern {

void check_replicas(Communicator& replicas, const std::string& fingerprint, std::int64_t step) {
  if (replicas.size() == 1) return;
  const std::vector<std::string> all = all_gather_text(replicas, fingerprint);
  std::map<std::string, int> votes;
  for (const std::string& each : all) ++votes[each];
  if (votes.size() == 1) return;
  std::string most = all.front();
  for (const std::string& each : all)
    if (votes[each] > votes[most]) most = each;
  std::vector<std::size_t> others;
  for (std::size_t r = 0; r < all.size(); ++r)
    if (all[r] != most) others.push_back(r);
  fail<RankError>(
      fmt::format("replicas: after step {} all {} must hold the same parameters, but replica {} "
                  "differs; go on from the last checkpoint, and suspect that machine's memory",
                  step, all.size(), fmt::join(others, ", ")));
}

}  // namespace lectern
