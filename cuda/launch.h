// Launching kernels.
#pragma once

#include "core/tensor.h"
#include "cuda/device_code.h"
#include "cuda/streams.h"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace lectern::cuda {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
};

/// Shared memory above which a kernel must ask (all architectures).
inline constexpr std::size_t kPlainSharedBytes = 48 << 10;

/// Runs kernel(arguments...) on the compute stream. `name` is what profilers and errors say.
template <typename... Parameters, typename... Arguments>
void launch(const char* name, const LaunchShape& shape, void (*kernel)(Parameters...),
            Arguments&&... arguments) {
  const Range range(name);
  if (shape.shared_bytes > kPlainSharedBytes)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shape.shared_bytes)),
          name);
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = compute_stream();
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), name);
  if (waits_for_kernels()) check(cudaStreamSynchronize(config.stream), name);
}

inline constexpr std::int64_t ceil_divide(std::int64_t n, std::int64_t by) {
  return (n + by - 1) / by;
}

/// Blocks for a loop over `n` items, `per_block` at a time, where threads go on in strides of the
/// whole grid: enough to fill the device several times over, and never more than the work.
inline unsigned grid_for(std::int64_t n, std::int64_t per_block) {
  const std::int64_t most = std::int64_t{multiprocessors()} * 16;
  return static_cast<unsigned>(std::clamp<std::int64_t>(ceil_divide(n, per_block), 1, most));
}

/// The elements of a contiguous tensor. An undefined tensor gives a span that does not exist.
template <typename T>
Span<T> span(const Tensor& tensor) {
  if (!tensor.defined()) return {};
  return {tensor.data<std::remove_const_t<T>>(), tensor.numel()};
}

/// Calls f.template operator()<T>() with T = float or BFloat16, what CUDA kernels store.
template <typename F>
decltype(auto) dispatch_storage(DType dtype, std::string_view operation, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f.template operator()<float>();
    case DType::bf16:
      return f.template operator()<BFloat16>();
    default:
      fail<DTypeError>(
          fmt::format("{}: dtype must be f32 or bf16 on CUDA, got {}", operation, name_of(dtype)));
  }
}

}  // namespace lectern::cuda
