// Stands in for CUDA's header of the same name when kernels are compiled for the host: the words of
// the language, the warp and block functions, and the part of the runtime that cuda/ calls. Streams
// and events hold only what waits for other processes; all else runs at once when it is asked for.
#pragma once

#include "tests/cuda_emulation/device_memory.h"
#include "tests/cuda_emulation/emulator.h"

#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

inline const dim3& threadIdx = lectern::emulation::now.thread;
inline const dim3& blockIdx = lectern::emulation::now.block;
inline const dim3& blockDim = lectern::emulation::now.block_size;
inline const dim3& gridDim = lectern::emulation::now.grid_size;

inline void __syncthreads(lectern::emulation::Site site = {__builtin_FILE(), __builtin_LINE()}) {
  lectern::emulation::block_barrier(site);
}

inline void __syncwarp(unsigned mask = 0xffffffffu,
                       lectern::emulation::Site site = {__builtin_FILE(), __builtin_LINE()}) {
  lectern::emulation::warp_collective(
      mask, lectern::emulation::Collective::sync, nullptr, [](void* const*, unsigned) {}, site);
}

namespace lectern::emulation {

template <typename T>
struct ShuffleArgument {
  T value, result;
  int source;
};

/// The value that lane `source` brought.
template <typename T>
T shuffle(unsigned mask, T value, int source, Site site) {
  ShuffleArgument<T> mine{value, value, source};
  warp_collective(
      mask, Collective::shuffle, &mine,
      [](void* const* arguments, unsigned lanes) {
        for (int i = 0; i < 32; ++i) {
          if ((lanes >> i & 1u) == 0) continue;
          auto* to = static_cast<ShuffleArgument<T>*>(arguments[i]);
          if (to->source < 0 || to->source > 31 || (lanes >> to->source & 1u) == 0)
            report("shuffles from a lane that is not in the mask");
          to->result = static_cast<ShuffleArgument<T>*>(arguments[to->source])->value;
        }
      },
      site);
  return mine.result;
}

inline unsigned ballot(unsigned mask, bool predicate, Site site) {
  struct Argument {
    bool predicate;
    unsigned result;
  } mine{predicate, 0};
  warp_collective(
      mask, Collective::vote, &mine,
      [](void* const* arguments, unsigned lanes) {
        unsigned votes = 0;
        for (int i = 0; i < 32; ++i)
          if ((lanes >> i & 1u) != 0 && static_cast<Argument*>(arguments[i])->predicate)
            votes |= 1u << i;
        for (int i = 0; i < 32; ++i)
          if ((lanes >> i & 1u) != 0) static_cast<Argument*>(arguments[i])->result = votes;
      },
      site);
  return mine.result;
}

}  // namespace lectern::emulation

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                  lectern::emulation::Site site = {__builtin_FILE(), __builtin_LINE()}) {
  const int lane = lectern::emulation::lane(), source = lane ^ lanes;
  return lectern::emulation::shuffle(mask, value, source / width == lane / width ? source : lane,
                                     site);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, int lanes, int width = 32,
                   lectern::emulation::Site site = {__builtin_FILE(), __builtin_LINE()}) {
  const int lane = lectern::emulation::lane(), source = lane + lanes;
  return lectern::emulation::shuffle(mask, value, source / width == lane / width ? source : lane,
                                     site);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, int lanes, int width = 32,
                 lectern::emulation::Site site = {__builtin_FILE(), __builtin_LINE()}) {
  const int lane = lectern::emulation::lane(), source = lane - lanes;
  return lectern::emulation::shuffle(mask, value, lane % width - lanes >= 0 ? source : lane, site);
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              lectern::emulation::Site site = {__builtin_FILE(), __builtin_LINE()}) {
  const int lane = lectern::emulation::lane();
  return lectern::emulation::shuffle(mask, value, lane / width * width + source % width, site);
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              lectern::emulation::Site site = {__builtin_FILE(),
                                                               __builtin_LINE()}) {
  return lectern::emulation::ballot(mask, predicate != 0, site);
}
inline int __any_sync(unsigned mask, int predicate,
                      lectern::emulation::Site site = {__builtin_FILE(), __builtin_LINE()}) {
  return lectern::emulation::ballot(mask, predicate != 0, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      lectern::emulation::Site site = {__builtin_FILE(), __builtin_LINE()}) {
  return lectern::emulation::ballot(mask, predicate != 0, site) == mask;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }

// --- runtime -----------------------------------------------------------------------------------

enum cudaError_t {
  cudaSuccess,
  cudaErrorInvalidValue,
  cudaErrorMemoryAllocation,
  cudaErrorIllegalAddress,
  cudaErrorMisalignedAddress,
  cudaErrorIllegalInstruction,
  cudaErrorInvalidPc,
  cudaErrorAssert,
  cudaErrorLaunchTimeout,
  cudaErrorLaunchFailure,
  cudaErrorNotReady
};
/// Kernels and copies run when they are started; what waits for other processes (nccl.cpp) is put
/// on a stream, and moves on when somebody asks whether it is done.
struct EmulatedStream {
  std::deque<std::function<bool()>> work;  ///< true when done
  std::uint64_t put = 0, done = 0;
  bool moves = false;  ///< its work may ask for this stream again, by way of others

  void add(std::function<bool()> each) {
    work.push_back(std::move(each));
    ++put;
  }
  bool is_past(std::uint64_t place) {
    if (moves) return done >= place;
    moves = true;
    while (!work.empty() && work.front()()) {
      work.pop_front();
      ++done;
    }
    moves = false;
    return done >= place;
  }
};
using cudaStream_t = EmulatedStream*;
struct EmulatedEvent {
  std::chrono::steady_clock::time_point time;
  EmulatedStream* stream = nullptr;
  std::uint64_t place = 0;

  bool is_over() const { return stream == nullptr || stream->is_past(place); }
};
using cudaEvent_t = EmulatedEvent*;
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
inline constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2,
                          cudaEventDefault = 0;

inline const char* cudaGetErrorName(cudaError_t status) {
  return status == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation"
         : status == cudaErrorIllegalAddress ? "cudaErrorIllegalAddress"
                                             : "cudaErrorInvalidValue";
}
inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount;
  std::size_t totalGlobalMem, sharedMemPerBlockOptin;
};
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* out, int) {
  *out = {};
  std::strcpy(out->name, "emulated GPU");
  out->major = 8;
  out->multiProcessorCount = 4;
  out->totalGlobalMem = lectern::emulation::kDeviceBytes;
  out->sharedMemPerBlockOptin = 163 << 10;
  return cudaSuccess;
}
/// Every process has a device of its own.
inline cudaError_t cudaDeviceGetPCIBusId(char* out, int bytes, int) {
  std::snprintf(out, static_cast<std::size_t>(bytes), "emulated:%d", static_cast<int>(::getpid()));
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : cudaErrorInvalidValue;
}
inline cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *free = lectern::emulation::device_bytes_free();
  *total = lectern::emulation::kDeviceBytes;
  return cudaSuccess;
}
inline cudaError_t cudaMalloc(void** out, std::size_t bytes) {
  *out = lectern::emulation::allocate_device(bytes);
  return *out == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
inline cudaError_t cudaFree(void* block) {
  return lectern::emulation::free_device(block) ? cudaSuccess : cudaErrorInvalidValue;
}
inline cudaError_t cudaMallocHost(void** out, std::size_t bytes) {
  *out = ::operator new(bytes);
  return cudaSuccess;
}
inline cudaError_t cudaFreeHost(void* block) {
  ::operator delete(block);
  return cudaSuccess;
}

namespace lectern::emulation {
inline bool is_copy_end(const void* data, std::size_t bytes, bool device) {
  return device ? is_device_range(data, bytes) : !is_device_pointer(data);
}
}  // namespace lectern::emulation

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes,
                                   cudaMemcpyKind kind, cudaStream_t) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (!lectern::emulation::is_copy_end(to, bytes, to_device) ||
      !lectern::emulation::is_copy_end(from, bytes, from_device))
    return cudaErrorInvalidValue;
  const lectern::emulation::DeviceAccess open;
  std::memmove(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) {
  if (!lectern::emulation::is_device_range(to, bytes)) return cudaErrorInvalidValue;
  const lectern::emulation::DeviceAccess open;
  std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned) {
  *out = new EmulatedStream;
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  // Events that were recorded on it may still be asked.
  static std::vector<std::unique_ptr<EmulatedStream>> gone;
  gone.emplace_back(stream);
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  while (!stream->is_past(stream->put)) {
  }
  return cudaSuccess;
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (!event->is_over()) stream->add([copy = *event] { return copy.is_over(); });
  return cudaSuccess;
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned) {
  *out = new EmulatedEvent;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->time = std::chrono::steady_clock::now();
  event->stream = stream;
  event->place = stream == nullptr ? 0 : stream->put;
  return cudaSuccess;
}
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return cudaSuccess;
}
inline cudaError_t cudaEventQuery(cudaEvent_t event) {
  return event->is_over() ? cudaSuccess : cudaErrorNotReady;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  while (!event->is_over()) {
  }
  return cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

struct cudaLaunchAttribute {};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int bytes) {
  return bytes <= 163 << 10 ? cudaSuccess : cudaErrorInvalidValue;
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const std::tuple<std::decay_t<Parameters>...> values(std::forward<Arguments>(arguments)...);
  lectern::emulation::run({.grid = config->gridDim,
                           .block = config->blockDim,
                           .shared_bytes = config->dynamicSmemBytes,
                           .kernel = reinterpret_cast<const void*>(kernel)},
                          [&] { std::apply(kernel, values); });
  return cudaSuccess;
}
