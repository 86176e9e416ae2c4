#include "cuda/vendor/versions.h"

#include <cublasLt.h>
#include <fmt/format.h>

namespace lectern::cuda {

std::string vendor_versions() {
  const std::size_t blas = cublasLtGetVersion();
  return fmt::format("cuBLAS {}.{}.{}", blas / 10000, blas / 100 % 100, blas % 100);
}

}  // namespace lectern::cuda
