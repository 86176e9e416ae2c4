// Tensors on the device: copies through pinned memory, and the backend that core/ asks for.
#pragma once

#include "core/device_backend.h"

namespace lectern::cuda {

DeviceBackend backend();

}  // namespace lectern::cuda
