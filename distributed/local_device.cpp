#include "distributed/local_device.h"

#include "core/error.h"
#include "distributed/world.h"

#include <algorithm>
#include <set>

namespace lectern {

int device_of_rank(const std::vector<std::vector<std::string>>& seen, std::size_t self,
                   const std::string& host) {
  std::set<std::string> taken, all;
  for (const auto& devices : seen) all.insert(devices.begin(), devices.end());
  for (std::size_t rank = 0; rank < seen.size(); ++rank) {
    const auto& devices = seen[rank];
    const auto free = std::find_if(devices.begin(), devices.end(),
                                   [&](const std::string& each) { return !taken.contains(each); });
    if (free == devices.end())
      fail<ConfigError>(fmt::format(
          "device: every rank on cuda needs a GPU of its own, got {} ranks on {}, which see {}: "
          "start at most {} there (mpirun --map-by ppr:{}:node)",
          seen.size(), host, all.size(), all.size(), std::max<std::size_t>(1, all.size())));
    if (rank == self) return static_cast<int>(free - devices.begin());
    taken.insert(*free);
  }
  fail<ConfigError>(
      fmt::format("device: rank {} must be one of {} on {}", self, seen.size(), host));
}

int assign_device(Communicator& world, const std::vector<std::string>& devices) {
  const std::string host = host_name();
  std::string mine = host + "\n";
  for (const std::string& device : devices) mine += device + "\n";
  std::vector<std::vector<std::string>> seen;
  std::size_t self = 0;
  const std::vector<std::string> texts = all_gather_text(world, mine);
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < texts[rank].size();) {
      const std::size_t end = texts[rank].find('\n', at);
      lines.push_back(texts[rank].substr(at, end - at));
      at = end + 1;
    }
    if (lines[0] != host) continue;
    if (rank == static_cast<std::size_t>(world.rank())) self = seen.size();
    seen.emplace_back(lines.begin() + 1, lines.end());
  }
  return device_of_rank(seen, self, host);
}

}  // namespace lectern
