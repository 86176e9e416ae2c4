// AdamW for one element; the formula is in nn/optim/optimizer.h.
#pragma once

#include "core/host_device.h"

#include <cmath>

namespace lectern {

template <typename T>
struct AdamWFactors {
  T gradient_scale;
  T decay;         // 1 - learning_rate * weight_decay
  T rate1;         // 1 - beta1
  T beta2, rate2;  // rate2 = 1 - beta2
  T root_bias2;    // sqrt(1 - beta2^step)
  T epsilon;
  T step_size;  // learning_rate / (1 - beta1^step)
};

template <typename T>
LECTERN_HOST_DEVICE inline void adamw_element(const AdamWFactors<T>& f, T& value, T grad,
                                              T& exp_avg, T& exp_avg_sq) {
  const T g = f.gradient_scale * grad;
  const T m = exp_avg + f.rate1 * (g - exp_avg);
  const T v = f.beta2 * exp_avg_sq + f.rate2 * g * g;
  exp_avg = m;
  exp_avg_sq = v;
  value = f.decay * value - f.step_size * (m / (std::sqrt(v) / f.root_bias2 + f.epsilon));
}

}  // namespace lectern
