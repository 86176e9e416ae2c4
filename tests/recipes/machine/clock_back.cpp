// Preloaded into a program, this sets its clock back by an hour each time it looks at it. Clocks
// that measure how much time passes go on as ever.
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <ctime>

namespace {

bool is_wall_clock(clockid_t clock) {
  return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI;
}

int fallen(timespec* out, clockid_t clock) {
  static std::atomic<long> looks{0};
  const auto result = static_cast<int>(::syscall(SYS_clock_gettime, clock, out));
  if (result == 0 && is_wall_clock(clock)) out->tv_sec -= 3600 * ++looks;
  return result;
}

}  // namespace

extern "C" {

int clock_gettime(clockid_t clock, timespec* out) noexcept { return fallen(out, clock); }

time_t time(time_t* out) noexcept {
  timespec now{};
  fallen(&now, CLOCK_REALTIME);
  if (out != nullptr) *out = now.tv_sec;
  return now.tv_sec;
}

int gettimeofday(timeval* out, void*) noexcept {
  timespec now{};
  const int result = fallen(&now, CLOCK_REALTIME);
  *out = {now.tv_sec, now.tv_nsec / 1000};
  return result;
}
}
