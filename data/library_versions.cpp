#include "data/library_versions.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/core.h>
#include <hdf5.h>
#include <pango/pangocairo.h>
#include <pcre2.h>
#include <spng.h>

namespace lectern {

std::string hdf5_version() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format("{}.{}.{}", major, minor, release);
}

std::string pcre2_version() {
  char text[64] = "";
  pcre2_config(PCRE2_CONFIG_VERSION, text);
  const std::string version = text;
  return version.substr(0, version.find(' '));
}

std::string png_version() { return spng_version_string(); }

std::string pango_version_text() { return pango_version_string(); }

std::string cairo_version_text() { return cairo_version_string(); }

}  // namespace lectern
