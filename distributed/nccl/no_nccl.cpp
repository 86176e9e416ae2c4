// In the place of everything else in this folder where the build has no nvcc or no nccl.h.
#include "distributed/groups.h"

namespace lectern {

bool has_nccl() { return false; }

std::shared_ptr<Communicator> make_nccl_group(const std::shared_ptr<Communicator>& /*host*/,
                                              Device device) {
  fail<ConfigError>(fmt::format(
      "ranks on {}: this build of lectern has no NCCL; train on the CPU, or build it where CMake "
      "finds nvcc and nccl.h",
      to_string(device)));
}

}  // namespace lectern
