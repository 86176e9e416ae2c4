#include "recipes/machine/process_memory.h"

#include <sys/resource.h>

namespace lectern {

std::int64_t peak_resident_bytes() {
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace lectern
