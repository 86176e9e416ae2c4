// Sums and maxima over a warp or a block. All threads get the result, the same bits in every run.
#pragma once

#include "cuda/device_code.h"

namespace lectern::cuda {

__device__ inline float warp_sum(float value) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2)
    value += __shfl_xor_sync(kAllLanes, value, lanes);
  return value;
}

__device__ inline double warp_sum(double value) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2)
    value += __shfl_xor_sync(kAllLanes, value, lanes);
  return value;
}

__device__ inline float warp_max(float value) {
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, lanes));
  return value;
}

/// Sums of 32 values each over the lanes of a warp, in 31 shuffles: lane i returns the sum of
/// values[i]. Destroys the values.
__device__ inline float warp_sums(float (&values)[kWarp]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int step = 0; step < 5; ++step) {
    const int half = kWarp / 2 >> step;
    const bool upper = (lane & half) != 0;
#pragma unroll
    for (int k = 0; k < kWarp / 2; ++k) {
      if (k >= half) break;
      const float give = upper ? values[k] : values[k + half];
      const float keep = upper ? values[k + half] : values[k];
      values[k] = keep + __shfl_xor_sync(kAllLanes, give, half);
    }
  }
  return values[0];
}

/// Over a block of whole warps, at most 1024 threads, blockIdx.y and z aside. `scratch` holds one
/// value a warp and may be used again at once.
template <typename T>
__device__ inline T block_sum(const Shared<T>& scratch, T value) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp,
            lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  value = warp_sum(value);
  __syncthreads();  // the scratch of an earlier sum may still be read
  if (lane == 0) scratch[warp] = value;
  __syncthreads();
  T other = 0;
  if (lane < warps) other = scratch[lane];
  return warp_sum(other);
}

__device__ inline float block_max(const Shared<float>& scratch, float value) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp,
            lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  value = warp_max(value);
  __syncthreads();
  if (lane == 0) scratch[warp] = value;
  __syncthreads();
  float other = -INFINITY;
  if (lane < warps) other = scratch[lane];
  return warp_max(other);
}

}  // namespace lectern::cuda
