// How wide loads and stores may be: 16 bytes where sizes and addresses allow, else one element.
#pragma once

#include "cuda/launch.h"

#include <cstdint>
#include <initializer_list>

namespace lectern::cuda {

template <typename T>
inline constexpr int kWidest = 16 / static_cast<int>(sizeof(T));

/// True when all defined tensors begin at a multiple of 16 bytes. Ask before a pointer is followed
/// in packs: views may begin anywhere.
inline bool are_aligned(std::initializer_list<const Tensor*> tensors) {
  return std::all_of(tensors.begin(), tensors.end(), [](const Tensor* tensor) {
    return !tensor->defined() || reinterpret_cast<std::uintptr_t>(tensor->raw()) % 16 == 0;
  });
}

/// Calls f.template operator()<N>() with N = kWidest<T> when the tensors are aligned and `columns`
/// (the length of their rows) is a multiple of it, else with 1.
template <typename T, typename F>
void dispatch_width(std::int64_t columns, std::initializer_list<const Tensor*> tensors, F&& f) {
  if (columns % kWidest<T> == 0 && are_aligned(tensors))
    f.template operator()<kWidest<T>>();
  else
    f.template operator()<1>();
}

/// Threads of a block that goes along a row together: whole warps, enough for one pack a thread, at
/// most `most`.
inline unsigned row_threads(std::int64_t packs, std::int64_t most = 512) {
  return static_cast<unsigned>(
      std::clamp<std::int64_t>(ceil_divide(packs, kWarp) * kWarp, kWarp, most));
}

template <typename T, int N>
__device__ inline Pack<float, N> to_floats(const Pack<T, N>& pack) {
  Pack<float, N> out;
  for (int i = 0; i < N; ++i) out[i] = to_float(pack[i]);
  return out;
}

/// N floats at i, in loads of 16 bytes.
template <int N>
__device__ inline Pack<float, N> load_floats(const Span<const float>& from, std::int64_t i) {
  Pack<float, N> out;
  if constexpr (N <= 4) {
    out = from.template load<N>(i);
  } else {
    for (int part = 0; part < N; part += 4) {
      const auto four = from.template load<4>(i + part);
      for (int k = 0; k < 4; ++k) out[part + k] = four[k];
    }
  }
  return out;
}

/// Index of the thread in the grid, and the number of threads in it.
__device__ inline std::int64_t grid_thread() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline std::int64_t grid_threads() {
  return static_cast<std::int64_t>(gridDim.x) * blockDim.x;
}

}  // namespace lectern::cuda
