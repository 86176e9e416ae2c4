#include "core/allocator.h"

#include "core/error.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <new>

namespace lectern {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
/// Cached blocks that are always allowed.
constexpr std::size_t kSpare = std::size_t{64} << 20;

/// Block sizes grow by an eighth, so a block is at most 12.5 % larger than what was asked for and
/// slightly different requests share blocks.
std::size_t round_up(std::size_t bytes) {
  if (bytes <= kAlignment) return kAlignment;
  std::size_t power = std::size_t{1} << (63 - __builtin_clzll(bytes));
  const std::size_t step = std::max(kAlignment, power / 8);
  return (bytes + step - 1) / step * step;
}

class CachingAllocator {
 public:
  void* allocate(std::size_t bytes) {
    const std::size_t size = round_up(bytes);
    const std::lock_guard lock(mutex_);
    ++statistics_.allocations;
    void* block = nullptr;
    if (auto found = free_.find(size); found != free_.end()) {
      block = found->second;
      free_.erase(found);
      ++statistics_.cache_hits;
    } else {
      make_room(size);
      block = from_system(size);
      if (block == nullptr) {
        release_locked();
        block = from_system(size);
      }
      if (block == nullptr)
        fail<MemoryError>(fmt::format("allocator: cannot get {} bytes ({} bytes are in use)", bytes,
                                      statistics_.current_bytes));
      statistics_.reserved_bytes += size;
    }
    statistics_.current_bytes += size;
    statistics_.peak_bytes = std::max(statistics_.peak_bytes, statistics_.current_bytes);
    highest_ = std::max(highest_, statistics_.current_bytes);
    return block;
  }

  void free(void* block, std::size_t bytes) {
    const std::size_t size = round_up(bytes);
    const std::lock_guard lock(mutex_);
    statistics_.current_bytes -= size;
    try {
      free_.emplace(size, block);
    } catch (const std::bad_alloc&) {  // no memory to remember it by
      std::free(block);
      statistics_.reserved_bytes -= size;
    }
  }

  void release() {
    const std::lock_guard lock(mutex_);
    release_locked();
  }

  MemoryStatistics statistics() {
    const std::lock_guard lock(mutex_);
    return statistics_;
  }

  void reset_peak() {
    const std::lock_guard lock(mutex_);
    statistics_.peak_bytes = statistics_.current_bytes;
  }

 private:
  static void* from_system(std::size_t size) {
    const bool huge = size >= kHugePage;
    const std::size_t alignment = huge ? kHugePage : kAlignment;
    void* block = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (block != nullptr && huge) madvise(block, size, MADV_HUGEPAGE);
    return block;
  }

  /// Pages of every length leave blocks of every size, which would add up: what is reserved stays
  /// within a quarter of the most that was ever in use. A run whose steps are alike comes nowhere
  /// near it and loses no block. The largest blocks go first: fewest calls, and small ones are the
  /// ones that most requests are for.
  void make_room(std::size_t size) {
    const std::size_t most = std::max(highest_, statistics_.current_bytes + size);
    const std::size_t limit = most + most / 4 + kSpare;
    while (statistics_.reserved_bytes + size > limit && !free_.empty()) {
      const auto largest = std::prev(free_.end());
      std::free(largest->second);
      statistics_.reserved_bytes -= largest->first;
      free_.erase(largest);
    }
  }

  void release_locked() {
    for (const auto& [size, block] : free_) {
      std::free(block);
      statistics_.reserved_bytes -= size;
    }
    free_.clear();
  }

  std::mutex mutex_;
  std::multimap<std::size_t, void*> free_;
  MemoryStatistics statistics_;
  std::size_t highest_ = 0;  ///< current_bytes at its most, ever
};

/// Never destroyed: tensors in static storage may outlive any order of destruction we could choose.
CachingAllocator& allocator() {
  static auto* instance = new CachingAllocator;
  return *instance;
}

}  // namespace

void* allocate_cpu(std::size_t bytes) { return allocator().allocate(bytes); }

void free_cpu(void* block, std::size_t bytes) noexcept {
  if (block != nullptr) allocator().free(block, bytes);
}

void release_cached_memory() { allocator().release(); }
void require_memory(std::size_t bytes, std::string_view what) {
  const auto is_there = [bytes] {
    void* room = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return room != MAP_FAILED && ::munmap(room, bytes) == 0;
  };
  if (is_there()) return;
  const int error = errno;
  release_cached_memory();
  if (!is_there())
    fail<MemoryError>(
        fmt::format("{} needs up to {} bytes: {}", what, bytes, std::strerror(error)));
}

MemoryStatistics memory_statistics() { return allocator().statistics(); }
void reset_peak_memory() { allocator().reset_peak(); }

}  // namespace lectern
