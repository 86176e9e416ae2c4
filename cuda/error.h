// Errors of the CUDA runtime and its libraries as lectern's exceptions.
#pragma once

#include "core/error.h"

#include <cuda_runtime.h>

#include <string_view>

namespace lectern {

/// A call of CUDA, cuBLAS or cuDNN failed; the message names the call and its answer.
class CudaError : public Error {
  using Error::Error;
};

namespace cuda {

inline void check(cudaError_t status, std::string_view call, SourceLocation where = {}) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();  // else the next, innocent call would report this one again
  fail<CudaError>(fmt::format("{}: must succeed, got {} ({})", call, cudaGetErrorName(status),
                              cudaGetErrorString(status)),
                  where);
}

}  // namespace cuda
}  // namespace lectern

#define CUDA_CHECK(call) ::lectern::cuda::check((call), #call)
