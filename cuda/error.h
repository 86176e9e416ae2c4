// Errors of the CUDA runtime and its libraries as lectern's exceptions.
#pragma once

#include "core/error.h"

#include <cuda_runtime.h>

#include <string_view>

namespace lectern {

/// A call of CUDA or cuBLAS failed; the message names the call and its answer.
class CudaError : public Error {
  using Error::Error;
};

namespace cuda {

/// Faults of a kernel that ran some time ago, which any later call may be told of.
inline bool is_asynchronous(cudaError_t status) {
  switch (status) {
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorLaunchTimeout:
    case cudaErrorLaunchFailure:
      return true;
    default:
      return false;
  }
}

inline void check(cudaError_t status, std::string_view call, SourceLocation where = {}) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();  // else the next, innocent call would report this one again
  const char* hint = is_asynchronous(status) ? "\nhint: an earlier kernel may be at fault; "
                                               "LECTERN_CUDA_SYNC=1 waits for each and names it"
                                             : "";
  fail<CudaError>(fmt::format("{}: must succeed, got {} ({}){}", call, cudaGetErrorName(status),
                              cudaGetErrorString(status), hint),
                  where);
}

}  // namespace cuda
}  // namespace lectern

#define CUDA_CHECK(call) ::lectern::cuda::check((call), #call)
