// Loops over the CPU's threads. One pool for the whole process: OpenMP's, which oneDNN uses too.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <mutex>

namespace lectern {

namespace detail {

/// The first exception of several threads: one that left a parallel region would end the process.
class FirstError {
 public:
  template <typename F>
  void guard(F&& f) {
    try {
      f();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (error_ == nullptr) error_ = std::current_exception();
    }
  }
  void rethrow() const {
    if (error_ != nullptr) std::rethrow_exception(error_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr error_;
};

}  // namespace detail

/// Threads that parallel loops use. Starts at OMP_NUM_THREADS or the number of cores.
inline int thread_count() { return omp_get_max_threads(); }
inline void set_thread_count(int threads) { omp_set_num_threads(threads); }

/// Calls f(begin, end) on disjoint ranges that cover 0..n, each at least `grain` long (the last may
/// be shorter). Runs inline when there is too little work or already inside a parallel region.
/// Throws what `f` throws (memory that was refused, say) once all ranges have ended.
template <typename F>
void parallel_for(std::int64_t n, std::int64_t grain, F&& f) {
  const std::int64_t chunks =
      std::min<std::int64_t>(thread_count(), (n + grain - 1) / std::max<std::int64_t>(grain, 1));
  if (chunks <= 1 || omp_in_parallel()) {
    if (n > 0) f(std::int64_t{0}, n);
    return;
  }
  detail::FirstError error;
#pragma omp parallel num_threads(static_cast <int>(chunks))
  {
    const std::int64_t count = omp_get_num_threads(), me = omp_get_thread_num();
    const std::int64_t begin = n * me / count, end = n * (me + 1) / count;
    if (begin < end) error.guard([&] { f(begin, end); });
  }
  error.rethrow();
}

/// Calls f(i) for each task 0..n-1; tasks are handed out as threads become free. For uneven work.
/// Throws what `f` throws, as parallel_for() does.
template <typename F>
void parallel_tasks(std::int64_t n, F&& f) {
  if (n <= 1 || thread_count() == 1 || omp_in_parallel()) {
    for (std::int64_t i = 0; i < n; ++i) f(i);
    return;
  }
  detail::FirstError error;
#pragma omp parallel for schedule(dynamic, 1)
  for (std::int64_t i = 0; i < n; ++i) error.guard([&] { f(i); });
  error.rethrow();
}

}  // namespace lectern
