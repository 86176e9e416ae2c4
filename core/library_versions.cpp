#include "core/library_versions.h"

#include <fmt/core.h>
#include <oneapi/dnnl/dnnl.hpp>

namespace lectern {

std::string onednn_version() {
  const dnnl_version_t* version = dnnl_version();
  return fmt::format("{}.{}.{}", version->major, version->minor, version->patch);
}

}  // namespace lectern
