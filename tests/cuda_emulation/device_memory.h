// The emulated device's memory: a region of the address space that is closed except while a kernel
// or a copy runs, so that host code which follows a device pointer stops at once.
#pragma once

#include <cstddef>

namespace lectern::emulation {

/// Multiple of 256 bytes, filled with 0xff (NaN in every floating type); null when there is none.
void* allocate_device(std::size_t bytes);
/// False when `block` was not allocated.
bool free_device(void* block);
/// True when all of [data, data + bytes) lies in one allocation.
bool is_device_range(const void* data, std::size_t bytes);
bool is_device_pointer(const void* data);
std::size_t device_bytes_free();
inline constexpr std::size_t kDeviceBytes = std::size_t{2} << 30;

/// Opens the region while it lives; may nest.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

}  // namespace lectern::emulation
