// Caching allocator of device memory, ordered with the compute stream: a block that was freed may
// be handed out at once, because whatever still uses it was queued before whatever comes next. Work
// on another stream must have made the compute stream wait (cudaStreamWaitEvent) before its tensors
// go.
//
// Memory is taken from the driver in segments and cut into chunks; a request gets the smallest free
// chunk that fits, and a freed chunk is joined with free neighbours.
#pragma once

#include "core/allocator.h"

#include <cstddef>

namespace lectern::cuda {

/// At least `bytes` bytes aligned to 512. Throws MemoryError, after unused segments were given back
/// and it was tried again, naming what was asked for, what is in use and what the device has.
void* allocate(std::size_t bytes);
void release(void* block) noexcept;
/// Gives segments that nobody uses back to the driver.
void release_cached_segments();
MemoryStatistics allocator_statistics();
void reset_allocator_peak();

}  // namespace lectern::cuda
