// Time that passes, for measuring and for limits.
#pragma once

#include <chrono>
#include <utility>

namespace lectern {

/// Seconds of a clock that never goes back. Only differences mean something.
inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Stopwatch {
 public:
  /// Since it was made, or since the last lap().
  double seconds() const { return now() - start_; }
  /// seconds(), and the count begins anew.
  double lap() {
    const double before = std::exchange(start_, now());
    return start_ - before;
  }

 private:
  double start_ = now();
};

}  // namespace lectern
