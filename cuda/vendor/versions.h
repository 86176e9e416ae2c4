// Versions of the CUDA libraries that the program runs with.
#pragma once

#include <string>

namespace lectern::cuda {

/// "cuBLAS 13.0.2, cuDNN 9.14.0"
std::string vendor_versions();

}  // namespace lectern::cuda
