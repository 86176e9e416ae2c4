// Memory of this process as the system counts it.
#pragma once

#include <cstdint>

namespace lectern {

/// Largest resident size so far, mapped files included, in bytes.
std::int64_t peak_resident_bytes();

}  // namespace lectern
