#include "recipes/device.h"

#include "core/device_backend.h"
#include "core/error.h"
#include "cuda/register.h"

namespace lectern {

Device use_device(const std::string& name) {
  if (name == "cpu") return {};
  if (name != "cuda")
    fail<ConfigError>(fmt::format("device: must be \"cpu\" or \"cuda\", got \"{}\"", name));
  register_cuda();
  return {DeviceType::cuda, 0};
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
