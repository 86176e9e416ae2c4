#include "recipes/machine/device.h"

#include "core/device_backend.h"
#include "core/error.h"
#include "cuda/register.h"
#include "distributed/local_device.h"

namespace lectern {

Device use_device(const std::string& name) {
  if (name == "cpu") return {};
  if (name != "cuda")
    fail<ConfigError>(fmt::format("device: must be \"cpu\" or \"cuda\", got \"{}\"", name));
  register_cuda();
  return {DeviceType::cuda, 0};
}

Device use_device(const std::string& name, Communicator& world) {
  if (name != "cuda" || world.size() == 1) return use_device(name);
  const CudaStatus status = cuda_status();
  if (status.devices.empty()) register_cuda();  // says what is missing
  std::vector<std::string> addresses;
  for (const CudaDevice& device : status.devices) addresses.push_back(device.address);
  register_cuda(assign_device(world, addresses));
  return {DeviceType::cuda, 0};  // a process has one device, whatever its number on the host
}

MemoryStatistics memory_statistics_of(Device device) {
  return device.type == DeviceType::cpu ? memory_statistics()
                                        : device_backend(device).statistics(device);
}

void reset_peak_memory_of(Device device) {
  if (device.type == DeviceType::cpu)
    reset_peak_memory();
  else
    device_backend(device).reset_peak(device);
}

void synchronize(Device device) {
  if (device.type != DeviceType::cpu) device_backend(device).synchronize(device);
}

}  // namespace lectern
