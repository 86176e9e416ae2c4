#include "recipes/machine/versions.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/core.h>
#include <hdf5.h>
#include <nlohmann/json.hpp>
#include <oneapi/dnnl/dnnl.hpp>
#include <pango/pangocairo.h>
#include <pcre2.h>
#include <spng.h>

namespace lectern {
namespace {

std::string dotted(auto major, auto minor, auto release) {
  return fmt::format("{}.{}.{}", major, minor, release);
}

}  // namespace

std::string git_revision() { return LECTERN_GIT_REVISION; }

nlohmann::json library_versions() {
  const dnnl_version_t* onednn = dnnl_version();
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  char pcre2[64] = "";  // "10.42 2022-12-11"
  pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
  return {{"oneDNN", dotted(onednn->major, onednn->minor, onednn->patch)},
          {"HDF5", dotted(major, minor, release)},
          {"PCRE2", std::string(pcre2, std::string_view(pcre2).find(' '))},
          {"libspng", spng_version_string()},
          {"pango", pango_version_string()},
          {"cairo", cairo_version_string()},
          {"fmt", dotted(FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100)}};
}

}  // namespace lectern
