// Version of the library that only core/ may include.
#pragma once

#include <string>

namespace lectern {

std::string onednn_version();

}  // namespace lectern
