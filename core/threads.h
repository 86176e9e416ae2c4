// Threads of our own, beside the pool of core/parallel.h: they wait for files and other programs.
#pragma once

#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace lectern {

/// Starts threads that each call `work`, and returns them: `count` (none below 1), or fewer when
/// the system refuses more. The caller joins them, and does the work itself when there are none.
template <typename F>
std::vector<std::thread> start_threads(std::int64_t count, const F& work) {
  std::vector<std::thread> out;
  if (count > 0) out.reserve(static_cast<std::size_t>(count));
  try {
    for (std::int64_t i = 0; i < count; ++i) out.emplace_back(work);
  } catch (const std::system_error&) {  // no memory for its stack, or too many processes
  }
  return out;
}

}  // namespace lectern
