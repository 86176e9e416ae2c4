// Versions of the libraries that only data/ may include.
#pragma once

#include <string>

namespace lectern {

std::string hdf5_version();
std::string pcre2_version();
std::string png_version();
std::string pango_version_text();
std::string cairo_version_text();

}  // namespace lectern
