// The door to CUDA for recipes, tests and benchmarks: what devices there are, and filling the CUDA
// slots of the operations. Builds without nvcc have the same functions, which say so.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace lectern {

struct CudaDevice {
  int index = 0;
  std::string name;
  std::string compute_capability;  ///< "9.0"
  std::size_t bytes = 0;
  int multiprocessors = 0;
  std::string address;  ///< on the PCI bus: tells the devices of a host apart
};

struct CudaStatus {
  bool in_build = false;
  std::string versions;  ///< "runtime 13.0, driver 13.0, cuBLAS 13.0.2"; "" without a build
  std::vector<CudaDevice> devices;
  std::string problem;  ///< why there are none, in one sentence; "" when there are
};

/// Asks the driver; never throws.
CudaStatus cuda_status();

/// Makes device `index` usable: sets its memory backend and every operation's CUDA kernels. Calling
/// it again for the same device does nothing. Throws DeviceError saying what is missing (a build
/// with CUDA, a driver, the device), ConfigError for a second, different device.
void register_cuda(int index = 0);

}  // namespace lectern
