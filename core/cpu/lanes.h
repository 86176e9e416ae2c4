// Lanes: one 64-byte register of numbers with the arithmetic of a single number, so that code
// written for one token (sinkhorn_math.h, stream_math.h) handles 16 f32 or 8 f64 tokens at a time,
// and tile kernels read like scalar loops. CPU only; a CUDA thread uses the same headers with plain
// numbers.
#pragma once

#include "core/cpu/vector_math.h"

#include <cstring>

namespace lectern {

template <typename T>
struct Lanes {
  static constexpr int kCount = static_cast<int>(64 / sizeof(T));
  typedef T Vector __attribute__((vector_size(64)));
  Vector v;

  Lanes() = default;
  Lanes(T all) : v(all - Vector{}) {}  // NOLINT: numbers mix with lanes; x - 0 is x, -0 too
  explicit Lanes(const Vector& lanes) : v(lanes) {}

  static Lanes load(const T* from) {
    Lanes out;
    std::memcpy(&out.v, from, sizeof(out.v));
    return out;
  }
  /// The first `count` numbers, zeros behind them.
  static Lanes load(const T* from, int count) {
    Lanes out(T(0));
    std::memcpy(&out.v, from, static_cast<std::size_t>(count) * sizeof(T));
    return out;
  }
  void store(T* to) const { std::memcpy(to, &v, sizeof(v)); }
  void store(T* to, int count) const {
    std::memcpy(to, &v, static_cast<std::size_t>(count) * sizeof(T));
  }
  /// Sum over lanes, halves first: always in the same order.
  T sum() const {
    alignas(64) T part[kCount];
    store(part);
    for (int width = kCount / 2; width > 0; width /= 2)
      for (int i = 0; i < width; ++i) part[i] += part[i + width];
    return part[0];
  }

  Lanes& operator+=(Lanes b) { return v += b.v, *this; }
  Lanes& operator-=(Lanes b) { return v -= b.v, *this; }
  Lanes& operator*=(Lanes b) { return v *= b.v, *this; }
  friend Lanes operator+(Lanes a, Lanes b) { return Lanes(a.v + b.v); }
  friend Lanes operator-(Lanes a, Lanes b) { return Lanes(a.v - b.v); }
  friend Lanes operator*(Lanes a, Lanes b) { return Lanes(a.v * b.v); }
  friend Lanes operator/(Lanes a, Lanes b) { return Lanes(a.v / b.v); }
  friend Lanes operator-(Lanes a) { return Lanes(-a.v); }
};

namespace lanes_detail {
template <typename T, typename F>
inline Lanes<T> each(Lanes<T> x, F f) {
  alignas(64) T value[Lanes<T>::kCount];
  x.store(value);
#pragma omp simd
  for (int i = 0; i < Lanes<T>::kCount; ++i) value[i] = f(value[i]);
  return Lanes<T>::load(value);
}
}  // namespace lanes_detail

template <typename T>
inline Lanes<T> maximum(Lanes<T> a, Lanes<T> b) {
  return Lanes<T>(a.v > b.v ? a.v : b.v);
}
/// 1 where a > b, else 0.
template <typename T>
inline Lanes<T> is_above(Lanes<T> a, Lanes<T> b) {
  return Lanes<T>(a.v > b.v ? Lanes<T>(T(1)).v : Lanes<T>(T(0)).v);
}
template <typename T>
inline Lanes<T> exponential(Lanes<T> x) {
  return lanes_detail::each(x, [](T value) { return fast_exp(value); });
}
template <typename T>
inline Lanes<T> hyperbolic_tangent(Lanes<T> x) {
  return lanes_detail::each(x, [](T value) { return fast_tanh(value); });
}
template <typename T>
inline Lanes<T> square_root(Lanes<T> x) {
  return lanes_detail::each(x, [](T value) { return std::sqrt(value); });
}

}  // namespace lectern
