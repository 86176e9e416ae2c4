#include "core/device_backend.h"

#include "core/error.h"

#include <array>
#include <optional>

namespace lectern {
namespace {

std::array<std::optional<DeviceBackend>, kDeviceTypes>& backends() {
  static std::array<std::optional<DeviceBackend>, kDeviceTypes> instance;
  return instance;
}

}  // namespace

void set_device_backend(DeviceType type, const DeviceBackend& backend) {
  backends()[static_cast<std::size_t>(type)] = backend;
}

const DeviceBackend& device_backend(Device device) {
  const auto& backend = backends()[static_cast<std::size_t>(device.type)];
  if (!backend)
    fail<DeviceError>(fmt::format("device: this build has no memory for {}", to_string(device)));
  return *backend;
}

}  // namespace lectern
