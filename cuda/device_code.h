// What kernels are written with: checked views of memory, vector loads, atomics, asynchronous
// copies and the tile instructions. Here is the GPU's version, where all of it becomes plain
// instructions; tests/cuda_emulation/cuda/device_code.h is the host's, where every access is
// checked and tile instructions multiply plainly. Kernels touch memory through nothing else.
//
//   Span<T>     global memory: a pointer, and in emulation the number of elements
//   Shared<T>   shared memory of the block, taken from SharedMemory in order of declaration
//   Pack<T, N>  N elements that move in one load or store; their index is a multiple of N and the
//               memory aligned to sizeof(T) * N (16 bytes at most)
#pragma once

#include "core/dtype.h"

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

namespace lectern::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T values[N];
  __host__ __device__ T& operator[](int i) { return values[i]; }
  const __host__ __device__ T& operator[](int i) const { return values[i]; }
};

template <typename T>
class Span {
 public:
  using Value = std::remove_const_t<T>;
  Span() = default;
  __host__ __device__ Span(T* data, std::int64_t) : data_(data) {}

  __device__ T& operator[](std::int64_t i) const { return data_[i]; }
  __host__ __device__ bool exists() const { return data_ != nullptr; }
  template <int N>
  __device__ Pack<Value, N> load(std::int64_t i) const {
    return *reinterpret_cast<const Pack<Value, N>*>(data_ + i);
  }
  template <int N>
  __device__ void store(std::int64_t i, const Pack<Value, N>& pack) const {
    *reinterpret_cast<Pack<Value, N>*>(data_ + i) = pack;
  }
  /// Adds and returns what was there before.
  __device__ Value atomic_add(std::int64_t i, Value term) const {
    return ::atomicAdd(data_ + i, term);
  }
  /// For instructions that take addresses.
  __device__ T* address(std::int64_t i, int) const { return data_ + i; }

 private:
  T* data_ = nullptr;
};

template <typename T>
class Shared {
 public:
  __device__ Shared(T* data, int) : data_(data) {}

  __device__ T& operator[](int i) const { return data_[i]; }
  template <int N>
  __device__ Pack<T, N> load(int i) const {
    return *reinterpret_cast<const Pack<T, N>*>(data_ + i);
  }
  template <int N>
  __device__ void store(int i, const Pack<T, N>& pack) const {
    *reinterpret_cast<Pack<T, N>*>(data_ + i) = pack;
  }
  __device__ T atomic_add(int i, T term) const { return ::atomicAdd(data_ + i, term); }
  __device__ Shared part(int begin, int) const { return Shared(data_ + begin, 0); }
  __device__ T* address(int i, int) const { return data_ + i; }

 private:
  T* data_;
};

/// Cuts the block's dynamic shared memory into arrays, each at a multiple of 16 bytes; the launch
/// must have asked for the sum (shared_bytes_of).
class SharedMemory {
 public:
  template <typename T>
  __device__ Shared<T> take(int count) {
    extern __shared__ __align__(128) unsigned char block_shared_memory[];
    T* data = reinterpret_cast<T*>(block_shared_memory + used_);
    used_ += (count * static_cast<int>(sizeof(T)) + 15) / 16 * 16;
    return Shared<T>(data, count);
  }

 private:
  int used_ = 0;
};

/// Bytes that take<T>(count) uses.
template <typename T>
__host__ __device__ constexpr std::size_t shared_bytes_of(std::size_t count) {
  return (count * sizeof(T) + 15) / 16 * 16;
}

// Elements in the type that kernels compute in.
__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(BFloat16 x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}
template <typename T>
__device__ inline T from_float(float x) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    T out;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
    return out;
  } else {
    return x;
  }
}

/// Two floats rounded to bf16 in one register, `low` in the lower half.
__device__ inline std::uint32_t pack_bf16(float low, float high) {
  std::uint32_t out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}

/// 2^x, to about 2 units in the last place; 0 below -126.
__device__ inline float exp2_fast(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

// Tile instruction: c [16, 8] += a [16, 16] b [16, 8], a warp together; bf16 inputs, f32 sums.
// With g = lane / 4 and t = lane % 4, a lane holds, two neighbours of a row (of a column for b) to
// a register:
//   a: (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8)     b: (2t, g), (2t + 8, g)
//   c: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
struct TileA {
  std::uint32_t parts[4];
};
struct TileB {
  std::uint32_t parts[2];
};
struct TileC {
  float sums[4];
};

__device__ inline void multiply_tile(TileC& c, const TileA& a, const TileB& b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c.sums[0]), "+f"(c.sums[1]), "+f"(c.sums[2]), "+f"(c.sums[3])
      : "r"(a.parts[0]), "r"(a.parts[1]), "r"(a.parts[2]), "r"(a.parts[3]), "r"(b.parts[0]),
        "r"(b.parts[1]));
}

/// Four 8 x 8 matrices of bf16 from shared memory: lane i names the row i % 8 of matrix i / 8 by
/// the index of its first element (a multiple of 8), and gets elements (lane / 4, 2 (lane % 4)) and
/// its right neighbour of each; with `kTransposed`, of the transposed matrix.
template <bool kTransposed>
__device__ inline void load_matrices(std::uint32_t (&parts)[4], const Shared<BFloat16>& from,
                                     int row_begin) {
  const auto address =
      static_cast<std::uint32_t>(__cvta_generic_to_shared(from.address(row_begin, 8)));
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
                 : "r"(address)
                 : "memory");
}

/// Starts copying 16 bytes from `from[j]` to `to[i]`; zeros instead when not `valid`, and `from` is
/// not read then. They are there after wait_copies and a barrier.
template <typename T>
__device__ inline void copy_async(const Shared<T>& to, int i, const Span<const T>& from,
                                  std::int64_t j, bool valid) {
  constexpr int kCount = 16 / sizeof(T);
  const auto target = static_cast<std::uint32_t>(__cvta_generic_to_shared(to.address(i, kCount)));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target),
               "l"(from.address(valid ? j : 0, valid ? kCount : 0)), "r"(bytes)
               : "memory");
}
/// Closes a group of copies; wait_copies<N> waits until at most N of the newest groups are under
/// way, for the calling thread's own copies.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

}  // namespace lectern::cuda
