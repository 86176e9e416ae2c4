// When what is asked of the device between start_trace() and stop_trace() ran there: events on the
// compute stream around each Range (cuda/streams.h). For one thread, the one that launches.
#pragma once

#include "core/profile.h"

#include <cstddef>
#include <vector>

namespace lectern::cuda {

void start_trace();
/// Waits for the device.
std::vector<ProfileSpan> stop_trace();

/// Index of a range for end_traced_range(); nothing happens outside a trace.
std::size_t begin_traced_range(const char* name);
void end_traced_range(std::size_t range) noexcept;

}  // namespace lectern::cuda
