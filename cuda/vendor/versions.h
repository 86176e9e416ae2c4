// Versions of the CUDA libraries that the program runs with.
#pragma once

#include <string>

namespace lectern::cuda {

/// "cuBLAS 13.0.2"
std::string vendor_versions();

}  // namespace lectern::cuda
