// What a device other than the CPU must offer for tensors to live there. cuda/register.h fills it
// in; the core library itself knows no CUDA.
#pragma once

#include "core/allocator.h"
#include "core/device.h"
#include "core/profile.h"

#include <cstddef>
#include <vector>

namespace lectern {

class Tensor;

/// All calls are ordered with the kernels of the device, as if in one queue.
struct DeviceBackend {
  /// Uninitialised, aligned to 256 bytes. Throws MemoryError naming the bytes.
  void* (*allocate)(std::size_t bytes, Device device);
  void (*free)(void* block, std::size_t bytes, Device device) noexcept;
  /// One end may be the CPU; a copy to the CPU is complete on return, and after any copy the source
  /// may change.
  void (*copy)(void* to, Device to_device, const void* from, Device from_device, std::size_t bytes);
  void (*zero)(void* data, std::size_t bytes, Device device);
  /// Values from one tensor to another of the same shape and device; any strides, any dtypes.
  void (*convert)(const Tensor& from, const Tensor& to);
  void (*fill)(const Tensor& x, double value);
  /// The queue itself (a cudaStream_t), for exchanges that must come before or after what is in it.
  void* (*compute_queue)(Device device);
  /// Returns when all that was asked of the device is done.
  void (*synchronize)(Device device);
  MemoryStatistics (*statistics)(Device device);
  void (*reset_peak)(Device device);
  /// Times what runs on the device until stop_trace(), which waits for it; seconds since
  /// start_trace().
  void (*start_trace)(Device device);
  std::vector<ProfileSpan> (*stop_trace)(Device device);
};

void set_device_backend(DeviceType type, const DeviceBackend& backend);
/// Throws DeviceError when nobody has set it: the build has no kernels for the device, or they were
/// never registered. Not for the CPU.
const DeviceBackend& device_backend(Device device);

}  // namespace lectern
