#include "recipes/machine/versions.h"

#include "core/library_versions.h"
#include "data/library_versions.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

namespace lectern {

std::string git_revision() { return LECTERN_GIT_REVISION; }

nlohmann::json library_versions() {
  return {{"oneDNN", onednn_version()},
          {"HDF5", hdf5_version()},
          {"PCRE2", pcre2_version()},
          {"libspng", png_version()},
          {"pango", pango_version_text()},
          {"cairo", cairo_version_text()},
          {"fmt", fmt::format("{}.{}.{}", FMT_VERSION / 10000, FMT_VERSION / 100 % 100,
                              FMT_VERSION % 100)}};
}

}  // namespace lectern
