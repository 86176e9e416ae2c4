// The number of residual streams as a constant of the compiler, for the kernels of CPU and GPU
// and their checks.
#pragma once

#include <cstdint>

namespace lectern {

constexpr int kMaxStreams = 8;

/// Calls f.template operator()<N>() with N = streams, 1 to 8, which the caller has checked.
template <typename F>
void dispatch_streams(std::int64_t streams, F&& f) {
  switch (streams) {
    case 1:
      return f.template operator()<1>();
    case 2:
      return f.template operator()<2>();
    case 3:
      return f.template operator()<3>();
    case 4:
      return f.template operator()<4>();
    case 5:
      return f.template operator()<5>();
    case 6:
      return f.template operator()<6>();
    case 7:
      return f.template operator()<7>();
    default:
      return f.template operator()<8>();
  }
}

}  // namespace lectern
