// Loops over threads whose work throws, and threads that the system refuses.
#include "core/parallel.h"

#include "core/threads.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <new>

namespace lectern {
namespace {

TEST(ParallelLoops, ThrowWhatTheirWorkThrows) {
  const int before = thread_count();
  for (const int threads : {1, 2, 3}) {
    set_thread_count(threads);
    std::atomic<int> done{0};
    const auto throwing = [&](std::int64_t i) {
      ++done;
      if (i == 7) throw std::bad_alloc();
    };
    EXPECT_THROW(parallel_tasks(20, throwing), std::bad_alloc);
    EXPECT_THROW(parallel_for(20, 1,
                              [&](std::int64_t begin, std::int64_t end) {
                                for (std::int64_t i = begin; i < end; ++i) throwing(i);
                              }),
                 std::bad_alloc);
    parallel_tasks(20, [&](std::int64_t) { ++done; });  // the pool is as good as new
    EXPECT_GE(done, 20);
  }
  set_thread_count(before);
}

/// Without room for stacks there are fewer threads, and their work is done by those there are.
TEST(StartedThreads, AreFewerWhenTheSystemRefusesMore) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers reserve address space of their own";
#endif
  const auto without_memory = [] {
    const rlimit none{1, 1};
    ::setrlimit(RLIMIT_AS, &none);
    // More than the stacks of threads that have ended, which the library keeps.
    constexpr std::int64_t kMany = 64;
    ::_exit(start_threads(kMany, [] { ::pause(); }).size() < kMany ? 0 : 1);
  };
  EXPECT_EXIT(without_memory(), ::testing::ExitedWithCode(0), "");
  std::atomic<int> calls{0};
  for (std::thread& thread : start_threads(3, [&] { ++calls; })) thread.join();
  EXPECT_EQ(calls, 3);
  EXPECT_TRUE(start_threads(-1, [] {}).empty());
}

}  // namespace
}  // namespace lectern
