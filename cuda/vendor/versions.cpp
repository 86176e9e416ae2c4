#include "cuda/vendor/versions.h"

#include <cublasLt.h>
#include <cudnn.h>
#include <fmt/format.h>

namespace lectern::cuda {

std::string vendor_versions() {
  const std::size_t blas = cublasLtGetVersion(), dnn = cudnnGetVersion();
  return fmt::format("cuBLAS {}.{}.{}, cuDNN {}.{}.{}", blas / 10000, blas / 100 % 100, blas % 100,
                     dnn / 10000, dnn / 100 % 100, dnn % 100);
}

}  // namespace lectern::cuda
