// Branch-free exp, erf, sigmoid and tanh for inner loops: plain scalar functions that GCC turns
// into vector code (-O3 -fno-math-errno -fno-trapping-math), unlike the calls of libm.
//
//   for (i...) y[i] = fast_exp(x[i]);      // 16 lanes at a time with AVX-512
//
// float: at most 2 units in the last place from the exact value
// (tests/core/cpu/vector_math_test.cpp), infinities, NaN and gradual underflow as in libm. double:
// libm itself, full precision, scalar. The polynomials are our own weighted least-squares (Lawson)
// fits of relative error.
#pragma once

#include "core/host_device.h"

#include <bit>
#include <cmath>
#include <cstdint>

namespace lectern {

namespace vector_math_detail {

/// 2^n for integers -126 <= n <= 127.
LECTERN_HOST_DEVICE inline float power_of_two(std::int32_t n) {
  return std::bit_cast<float>((n + 127) << 23);
}

/// Horner's scheme, coefficients from the highest power down.
template <typename... Rest>
LECTERN_HOST_DEVICE inline float horner(float x, float first, Rest... rest) {
  float value = first;
  ((value = value * x + rest), ...);
  return value;
}

LECTERN_HOST_DEVICE inline float exp_float(float x) {
  // Below -104 the result is 0, above 89 infinite; the comparisons let NaN through.
  x = x < -104.0f ? -104.0f : x;
  x = x > 89.0f ? 89.0f : x;
  // x = n ln 2 + r. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low mantissa bits.
  constexpr float kRound = 12582912.0f;
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const std::int32_t exponent = std::bit_cast<std::int32_t>(shifted) - 0x4b400000;
  // ln 2 in two parts (Cody and Waite): the first has few bits, so that n * high is exact.
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  const float value =
      horner(r, 0.0013836834f, 0.0083748223f, 0.041668225f, 0.1666642f, 0.49999991f, 1.0f, 1.0f);
  // Two factors, because n can lie one beyond either end of the exponent range.
  const std::int32_t half = exponent >> 1;
  return value * power_of_two(half) * power_of_two(exponent - half);
}

LECTERN_HOST_DEVICE inline float erf_float(float x) {
  const float magnitude = std::fabs(x);
  const float square = x * x;
  // |x| < 1: x + x P(x^2); the sum keeps the rounding of the first coefficient small.
  const float small =
      x + x * horner(square, -9.6415151e-6f, 1.1256948e-4f, -8.4828289e-4f, 5.2209455e-3f,
                     -2.68654e-2f, 0.11283782f, -0.37612638f, 0.128379167f);
  // Else 1 - exp(-Q(|x|)) with Q = -log(erfc); beyond 4 the result is 1 in float.
  const float t = magnitude > 4.0f ? 4.0f : magnitude;
  const float log_erfc =
      horner(t, -1.643224e-6f, 4.6165576e-5f, -5.9759693e-4f, 4.7627194e-3f, -2.6428234e-2f,
             0.11008928f, 0.6318199f, 1.13023484f, -3.1994245e-4f);
  const float large = std::copysign(1.0f - exp_float(-log_erfc), x);
  return magnitude < 1.0f ? small : large;
}

LECTERN_HOST_DEVICE inline float tanh_float(float x) {
  const float magnitude = std::fabs(x);
  const float square = x * x;
  const float small = x * horner(square, 2.1034027e-3f, -8.1317648e-3f, 2.1680735e-2f,
                                 -5.3942647e-2f, 0.13333166f, -0.33333328f, 1.0f);
  const float large = std::copysign(1.0f - 2.0f / (1.0f + exp_float(2.0f * magnitude)), x);
  return magnitude < 0.63f ? small : large;
}

}  // namespace vector_math_detail

/// e^x
template <typename T>
LECTERN_HOST_DEVICE inline T fast_exp(T x) {
  if constexpr (sizeof(T) == sizeof(float))
    return vector_math_detail::exp_float(x);
  else
    return std::exp(x);
}

/// 2/sqrt(pi) times the integral of e^(-t^2) over 0..x
template <typename T>
LECTERN_HOST_DEVICE inline T fast_erf(T x) {
  if constexpr (sizeof(T) == sizeof(float))
    return vector_math_detail::erf_float(x);
  else
    return std::erf(x);
}

/// 1 / (1 + e^-x); no overflow at either end
template <typename T>
LECTERN_HOST_DEVICE inline T fast_sigmoid(T x) {
  return T(1) / (T(1) + fast_exp(-x));
}

template <typename T>
LECTERN_HOST_DEVICE inline T fast_tanh(T x) {
  if constexpr (sizeof(T) == sizeof(float))
    return vector_math_detail::tanh_float(x);
  else
    return std::tanh(x);
}

}  // namespace lectern
