// The operation table: one per operation, one slot per device type.
//
// An operation's header declares a struct of function pointers; its .cpp fills the CPU slot, and
// cuda/ops/<name>.cu fills the CUDA slot through register_<name>(). Callers never know.
#pragma once

#include "core/device.h"
#include "core/error.h"

#include <array>
#include <optional>
#include <string_view>

namespace lectern {

template <typename Functions>
class KernelTable {
 public:
  KernelTable(std::string_view operation, Functions cpu) : operation_(operation) {
    set(DeviceType::cpu, cpu);
  }

  void set(DeviceType device, Functions functions) {
    slots_[static_cast<std::size_t>(device)] = functions;
  }

  /// Throws DeviceError when the operation has no kernel for the device; never falls back to CPU.
  const Functions& at(Device device) const {
    const auto& slot = slots_[static_cast<std::size_t>(device.type)];
    if (!slot)
      fail<DeviceError>(
          fmt::format("{}: no kernel for {} in this build", operation_, to_string(device)));
    return *slot;
  }

 private:
  std::string_view operation_;
  std::array<std::optional<Functions>, kDeviceTypes> slots_;
};

}  // namespace lectern
