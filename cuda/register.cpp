#include "cuda/register.h"

#include "cuda/memory.h"
#include "cuda/ops/register_ops.h"
#include "cuda/streams.h"
#include "cuda/vendor/versions.h"

#include <array>
#include <cstdlib>

namespace lectern {
namespace cuda {
namespace {

struct Process {
  int device = -1;
  int multiprocessors = 1;
  cudaStream_t compute = nullptr, communication = nullptr;
};

Process& process() {
  static Process instance;
  return instance;
}

std::string dotted(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

}  // namespace

cudaStream_t compute_stream() {
  // The current device is a thread's own, and at first the host's first one.
  thread_local int current = -1;
  if (current != process().device && cudaSetDevice(process().device) == cudaSuccess)
    current = process().device;
  return process().compute;
}
cudaStream_t communication_stream() { return process().communication; }
int multiprocessors() { return process().multiprocessors; }
bool waits_for_kernels() {
  static const bool asked = std::getenv("LECTERN_CUDA_SYNC") != nullptr;
  return asked;
}

}  // namespace cuda

CudaStatus cuda_status() {
  CudaStatus status;
  status.in_build = true;
  int runtime = 0, driver = 0, count = 0;
  (void)cudaRuntimeGetVersion(&runtime);
  (void)cudaDriverGetVersion(&driver);
  status.versions =
      fmt::format("runtime {}, driver {}, {}", cuda::dotted(runtime),
                  driver == 0 ? "none" : cuda::dotted(driver), cuda::vendor_versions());
  if (const cudaError_t answer = cudaGetDeviceCount(&count); answer != cudaSuccess) {
    (void)cudaGetLastError();
    status.problem = fmt::format("no GPU: {}", cudaGetErrorString(answer));
    return status;
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
    std::array<char, 32> address{};
    (void)cudaDeviceGetPCIBusId(address.data(), static_cast<int>(address.size()), i);
    status.devices.push_back(
        {i, properties.name, fmt::format("{}.{}", properties.major, properties.minor),
         properties.totalGlobalMem, properties.multiProcessorCount, address.data()});
  }
  if (status.devices.empty()) status.problem = "no GPU: the driver lists none";
  return status;
}

void register_cuda(int index) {
  cuda::Process& process = cuda::process();
  if (process.device == index) return;
  if (process.device >= 0)
    fail<ConfigError>(fmt::format(
        "cuda: one process drives one device, it has cuda:{}, got cuda:{}", process.device, index));
  const CudaStatus status = cuda_status();
  if (status.devices.empty())
    fail<DeviceError>(fmt::format("device: must be \"cpu\", got \"cuda\": {}", status.problem));
  if (index < 0 || index >= static_cast<int>(status.devices.size()))
    fail<DeviceError>(fmt::format("device: must be cuda:0 to cuda:{}, got cuda:{}",
                                  status.devices.size() - 1, index));
  const CudaDevice& device = status.devices[static_cast<std::size_t>(index)];
  if (device.compute_capability.size() < 4 && device.compute_capability < "8.0")
    fail<DeviceError>(
        fmt::format("device: must be a GPU of compute capability 8.0 or newer, got {} ({})",
                    device.name, device.compute_capability));
  CUDA_CHECK(cudaSetDevice(index));
  CUDA_CHECK(cudaStreamCreateWithFlags(&process.compute, cudaStreamNonBlocking));
  CUDA_CHECK(cudaStreamCreateWithFlags(&process.communication, cudaStreamNonBlocking));
  process.multiprocessors = device.multiprocessors;
  set_device_backend(DeviceType::cuda, cuda::backend());
  cuda::register_operations();
  process.device = index;
}

}  // namespace lectern
