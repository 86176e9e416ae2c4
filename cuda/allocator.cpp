#include "cuda/allocator.h"

#include "cuda/streams.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>

namespace lectern::cuda {
namespace {

constexpr std::size_t kAlignment = 512;
/// Requests up to this size share segments of their own, so that they do not cut large ones up.
constexpr std::size_t kSmall = 1 << 20;
constexpr std::size_t kSmallSegment = 8 << 20, kLargeSegment = 64 << 20, kSegmentUnit = 2 << 20;

std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

/// Whether LECTERN_CUDA_POISON asks for memory that is NaN until somebody writes to it, recycled
/// memory too: a kernel that reads what nobody wrote is then found by its results.
bool poisons() {
  static const bool asked = std::getenv("LECTERN_CUDA_POISON") != nullptr;
  return asked;
}

struct Chunk {
  std::byte* begin;
  std::size_t bytes;
  std::size_t segment_bytes = 0;  // of the first chunk of a segment, else 0
  bool is_free = false;
  Chunk *before = nullptr, *after = nullptr;  // neighbours in the segment
};

struct Smaller {
  bool operator()(const Chunk* a, const Chunk* b) const {
    return a->bytes != b->bytes ? a->bytes < b->bytes : a->begin < b->begin;
  }
};

class Allocator {
 public:
  void* allocate(std::size_t bytes) {
    const std::size_t size = round_up(std::max<std::size_t>(bytes, 1), kAlignment);
    const bool small = size <= kSmall;
    const std::lock_guard lock(mutex_);
    ++statistics_.allocations;
    Chunk* chunk = take_free(small, size);
    if (chunk != nullptr)
      ++statistics_.cache_hits;
    else
      chunk = new_segment(small, size);
    split(small, chunk, size);
    chunk->is_free = false;
    live_.emplace(chunk->begin, chunk);
    statistics_.current_bytes += chunk->bytes;
    statistics_.peak_bytes = std::max(statistics_.peak_bytes, statistics_.current_bytes);
    if (poisons()) CUDA_CHECK(cudaMemsetAsync(chunk->begin, 0xff, chunk->bytes, compute_stream()));
    return chunk->begin;
  }

  void release(void* block) {
    const std::lock_guard lock(mutex_);
    const auto found = live_.find(static_cast<std::byte*>(block));
    if (found == live_.end()) return;
    Chunk* chunk = found->second;
    live_.erase(found);
    statistics_.current_bytes -= chunk->bytes;
    chunk->is_free = true;
    auto& pool = free_[pool_of(chunk)];
    if (chunk->after != nullptr && chunk->after->is_free) {
      pool.erase(chunk->after);
      join(chunk);
    }
    if (chunk->before != nullptr && chunk->before->is_free) {
      chunk = chunk->before;
      pool.erase(chunk);
      join(chunk);
    }
    pool.insert(chunk);
  }

  void release_segments() {
    const std::lock_guard lock(mutex_);
    release_segments_locked();
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
  using Pool = std::set<Chunk*, Smaller>;

  static const Chunk* first_of(const Chunk* chunk) {
    while (chunk->before != nullptr) chunk = chunk->before;
    return chunk;
  }
  static bool pool_of(const Chunk* chunk) {
    return first_of(chunk)->segment_bytes == kSmallSegment;
  }

  Chunk* take_free(bool small, std::size_t size) {
    Chunk wanted{nullptr, size};
    Pool& pool = free_[small];
    const auto found = pool.lower_bound(&wanted);
    if (found == pool.end()) return nullptr;
    Chunk* chunk = *found;
    pool.erase(found);
    return chunk;
  }

  Chunk* new_segment(bool small, std::size_t size) {
    std::size_t bytes =
        small ? kSmallSegment : std::max(kLargeSegment, round_up(size, kSegmentUnit));
    void* memory = nullptr;
    if (cudaMalloc(&memory, bytes) != cudaSuccess) {
      (void)cudaGetLastError();
      release_segments_locked();
      if (!small) bytes = round_up(size, kSegmentUnit);  // what is left may not hold a whole one
      if (cudaMalloc(&memory, bytes) != cudaSuccess) fail_full(size);
    }
    statistics_.reserved_bytes += bytes;
    return new Chunk{static_cast<std::byte*>(memory), bytes, bytes};
  }

  [[noreturn]] void fail_full(std::size_t size) {
    (void)cudaGetLastError();
    std::size_t free = 0, total = 0;
    (void)cudaMemGetInfo(&free, &total);
    fail<MemoryError>(fmt::format(
        "cuda: cannot get {} bytes ({} bytes are in use, {} of the device's {} are free)", size,
        statistics_.current_bytes, free, total));
  }

  void split(bool small, Chunk* chunk, std::size_t size) {
    if (chunk->bytes - size < kAlignment || (!small && chunk->bytes - size < kSmall)) return;
    auto* rest = new Chunk{chunk->begin + size, chunk->bytes - size};
    rest->is_free = true;
    rest->before = chunk;
    rest->after = chunk->after;
    if (chunk->after != nullptr) chunk->after->before = rest;
    chunk->after = rest;
    chunk->bytes = size;
    free_[small].insert(rest);
  }

  /// Swallows the neighbour after `chunk`.
  static void join(Chunk* chunk) {
    Chunk* gone = chunk->after;
    chunk->bytes += gone->bytes;
    chunk->after = gone->after;
    if (gone->after != nullptr) gone->after->before = chunk;
    delete gone;
  }

  void release_segments_locked() {
    for (Pool& pool : free_)
      for (auto at = pool.begin(); at != pool.end();) {
        Chunk* chunk = *at;
        if (chunk->bytes != chunk->segment_bytes) {
          ++at;
          continue;
        }
        at = pool.erase(at);
        (void)cudaFree(chunk->begin);  // waits for the device, so nothing uses it any more
        statistics_.reserved_bytes -= chunk->bytes;
        delete chunk;
      }
  }

  std::mutex mutex_;
  Pool free_[2];  // chunks of large segments, of small ones
  std::unordered_map<std::byte*, Chunk*> live_;
  MemoryStatistics statistics_;
};

/// Never destroyed: tensors in static storage may go after it.
Allocator& allocator() {
  static auto* instance = new Allocator;
  return *instance;
}

}  // namespace

void* allocate(std::size_t bytes) { return allocator().allocate(bytes); }
void release(void* block) noexcept {
  if (block != nullptr) allocator().release(block);
}
void release_cached_segments() { allocator().release_segments(); }
MemoryStatistics allocator_statistics() { return allocator().statistics(); }
void reset_allocator_peak() { allocator().reset_peak(); }

}  // namespace lectern::cuda
