// The arithmetic of rope for one pair of numbers; formulas in core/ops/rope.h.
#pragma once

#include "core/host_device.h"

#include <cmath>
#include <cstdint>

namespace lectern::rope_math {

/// theta^(-2 j / (2 half)), rounded where transformers rounds it.
inline float inverse_frequency(double theta, std::int64_t j, std::int64_t half) {
  const float exponent = static_cast<float>(2 * j) / static_cast<float>(2 * half);
  return 1.0f / static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
}

template <typename T>
struct Pair {
  T low, high;
};

template <typename T>
LECTERN_HOST_DEVICE inline Pair<T> rotate(T low, T high, T cosine, T sine) {
  return {low * cosine - high * sine, high * cosine + low * sine};
}

}  // namespace lectern::rope_math
