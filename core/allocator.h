// Caching CPU allocator: freed blocks are kept by size and handed out again, so that a training
// step after the first takes no page fault. Blocks in use and kept ones together are held to 1.25
// times the most that was ever in use, and 64 MiB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lectern {

/// Bytes as the allocator counts them (rounded up to its block sizes).
struct MemoryStatistics {
  std::size_t current_bytes = 0;   ///< held by live tensors
  std::size_t peak_bytes = 0;      ///< largest current_bytes since the last reset_peak_memory()
  std::size_t reserved_bytes = 0;  ///< taken from the system: live + cached
  std::uint64_t allocations = 0;   ///< requests served
  std::uint64_t cache_hits = 0;    ///< of those, served from a cached block
};

/// Returns at least `bytes` bytes aligned to 64 (2 MiB for blocks over 2 MiB), uninitialised.
/// Throws MemoryError, after the cache was emptied and tried again, naming the bytes asked for.
void* allocate_cpu(std::size_t bytes);

/// Gives a block of allocate_cpu(bytes) back to the cache. Null is ignored.
void free_cpu(void* block, std::size_t bytes) noexcept;

/// Returns cached blocks to the system.
void release_cached_memory();

/// Throws MemoryError "<what> needs ..." unless `bytes` of address space can be had, which are
/// given back at once. For libraries that do not look whether they got their memory. Takes about 1
/// us.
void require_memory(std::size_t bytes, std::string_view what);

MemoryStatistics memory_statistics();
void reset_peak_memory();

}  // namespace lectern
