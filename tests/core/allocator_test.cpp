#include "core/allocator.h"

#include "core/tensor.h"
#include "tests/testing.h"

#include <cstdint>
#include <cstring>

namespace lectern {
namespace {

TEST(Allocator, ReusesAFreedBlock) {
  void* first = allocate_cpu(100'000);
  free_cpu(first, 100'000);
  const auto before = memory_statistics();
  void* second = allocate_cpu(100'000);
  const auto after = memory_statistics();
  EXPECT_EQ(second, first);
  EXPECT_EQ(after.cache_hits, before.cache_hits + 1);
  EXPECT_EQ(after.reserved_bytes, before.reserved_bytes);
  // Sizes within an eighth share blocks.
  free_cpu(second, 100'000);
  void* near = allocate_cpu(99'000);
  EXPECT_EQ(near, first);
  free_cpu(near, 99'000);
}

TEST(Allocator, CountsCurrentAndPeak) {
  release_cached_memory();
  reset_peak_memory();
  const auto start = memory_statistics();
  EXPECT_EQ(start.reserved_bytes, start.current_bytes);
  EXPECT_EQ(start.peak_bytes, start.current_bytes);
  {
    const Tensor a = Tensor::empty({1 << 20});
    { const Tensor b = Tensor::empty({1 << 20}); }
    EXPECT_EQ(memory_statistics().current_bytes, start.current_bytes + (4u << 20));
  }
  const auto end = memory_statistics();
  EXPECT_EQ(end.current_bytes, start.current_bytes);
  EXPECT_EQ(end.peak_bytes, start.current_bytes + (8u << 20));
  EXPECT_EQ(end.allocations, start.allocations + 2);
  EXPECT_EQ(end.reserved_bytes, start.current_bytes + (8u << 20)) << "freed blocks are cached";
  release_cached_memory();
  EXPECT_EQ(memory_statistics().reserved_bytes, start.current_bytes);
}

TEST(Allocator, BlocksAreAlignedLargeEnoughAndDistinct) {
  for (const std::size_t bytes :
       {1ul, 63ul, 64ul, 65ul, 1000ul, 4097ul, (2ul << 20) + 1, 5ul << 20}) {
    void* a = allocate_cpu(bytes);
    void* b = allocate_cpu(bytes);
    const std::uintptr_t alignment = bytes > (2ul << 20) ? 2ul << 20 : 64;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a) % alignment, 0u) << bytes;
    std::memset(a, 1, bytes);
    std::memset(b, 2, bytes);
    EXPECT_EQ(static_cast<char*>(a)[bytes - 1], 1) << bytes;
    free_cpu(a, bytes);
    free_cpu(b, bytes);
  }
  free_cpu(nullptr, 10);
}

TEST(Allocator, BlocksOfManySizesDoNotAddUp) {
  release_cached_memory();
  std::size_t largest = 0;
  for (std::size_t mib = 40; mib <= 160; mib += 8) {  // 1.6 GB in all
    const std::size_t bytes = mib << 20;
    free_cpu(allocate_cpu(bytes), bytes);
    largest = std::max(largest, memory_statistics().reserved_bytes);
  }
  reset_peak_memory();
  EXPECT_LE(largest, (std::size_t{160} << 20) * 5 / 4 + (std::size_t{64} << 20) +
                         2 * memory_statistics().current_bytes);
  release_cached_memory();
}

TEST(Allocator, RefusesWhatCannotBeHad) {
  const auto before = memory_statistics();
  EXPECT_TRUE(testing::throws_with([] { allocate_cpu(std::size_t{1} << 60); },
                                   {"allocator: cannot get 1152921504606846976 bytes"}));
  require_memory(1 << 20, "a library");
  EXPECT_TRUE(testing::throws_with([] { require_memory(std::size_t{1} << 60, "a library"); },
                                   {"a library needs up to 1152921504606846976 bytes: Cannot"}));
  EXPECT_EQ(memory_statistics().current_bytes, before.current_bytes);
}

}  // namespace
}  // namespace lectern
