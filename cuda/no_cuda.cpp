// In the place of everything else in this folder where the build has no nvcc.
#include "core/error.h"
#include "cuda/register.h"

namespace lectern {

CudaStatus cuda_status() {
  CudaStatus status;
  status.problem = "not in this build (configured without nvcc)";
  return status;
}

void register_cuda(int) {
  fail<DeviceError>(
      "device: must be \"cpu\", got \"cuda\": this build has no CUDA\n"
      "hint: install the CUDA toolkit (nvcc) and configure again");
}

}  // namespace lectern
