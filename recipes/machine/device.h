// The device that a command works on.
#pragma once

#include "core/allocator.h"
#include "core/device.h"
#include "distributed/communicator.h"

#include <string>

namespace lectern {

/// "cpu" or "cuda". Makes a GPU usable the first time it is asked for. Throws ConfigError for
/// another name, DeviceError where there is no GPU or no CUDA in the build, saying which.
Device use_device(const std::string& name);
/// The same for a rank of a job, which takes a GPU of its own (distributed/local_device.h).
/// Collective; throws ConfigError too where there are fewer GPUs than ranks.
Device use_device(const std::string& name, Communicator& world);

/// Of the device's allocator.
MemoryStatistics memory_statistics_of(Device device);
void reset_peak_memory_of(Device device);
/// Returns when the device has done all that was asked of it.
void synchronize(Device device);

}  // namespace lectern
