// The streams of the process, and what host code around the kernels needs. One process drives one
// device. Nothing here needs nvcc.
#pragma once

#include "core/tensor.h"
#include "cuda/error.h"
#include "cuda/trace.h"

#include <cuda_runtime.h>
#include <nvtx3/nvToolsExt.h>

namespace lectern::cuda {

/// Every kernel and product runs here, in order; copies that nobody waits for too.
cudaStream_t compute_stream();
/// For exchanges between ranks, beside the computation.
cudaStream_t communication_stream();
/// Whether LECTERN_CUDA_SYNC asks to wait for every kernel, so that a fault is reported where it
/// was made and not by a later call.
bool waits_for_kernels();
/// Streaming multiprocessors of the device.
int multiprocessors();

/// A range that profilers and the trace (cuda/trace.h) show, for as long as it lives.
class Range {
 public:
  explicit Range(const char* name) : traced_(begin_traced_range(name)) { nvtxRangePushA(name); }
  ~Range() {
    nvtxRangePop();
    end_traced_range(traced_);
  }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;

 private:
  std::size_t traced_;
};

/// A copy on the device of a small tensor that lives on the CPU (token ids, positions, labels),
/// kept with its storage until its content changes. A tensor that is on the device is returned
/// itself.
Tensor on_device(const Tensor& tensor, Device device);

}  // namespace lectern::cuda
