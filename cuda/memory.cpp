#include "cuda/memory.h"

#include "cuda/allocator.h"
#include "cuda/ops/convert.h"
#include "cuda/streams.h"
#include "cuda/trace.h"

#include <cstring>
#include <deque>
#include <mutex>
#include <vector>

namespace lectern::cuda {
namespace {

/// Pageable memory cannot be copied asynchronously: it goes through pinned blocks of this size,
/// several in turn, so that filling one overlaps the transfer of another.
constexpr std::size_t kStagingBytes = 4 << 20;
constexpr std::size_t kStagingBlocks = 4;

class Staging {
 public:
  struct Block {
    std::byte* memory = nullptr;
    cudaEvent_t done = nullptr;
  };

  /// A block whose last transfer is over.
  Block& next() {
    if (blocks_.size() < kStagingBlocks) {
      Block block;
      void* memory = nullptr;
      CUDA_CHECK(cudaMallocHost(&memory, kStagingBytes));
      block.memory = static_cast<std::byte*>(memory);
      CUDA_CHECK(cudaEventCreateWithFlags(&block.done, cudaEventDisableTiming));
      blocks_.push_back(block);
      return blocks_.back();
    }
    Block& block = blocks_[turn_++ % kStagingBlocks];
    CUDA_CHECK(cudaEventSynchronize(block.done));
    return block;
  }

  std::mutex mutex;

 private:
  std::deque<Block> blocks_;
  std::size_t turn_ = 0;
};

Staging& staging() {
  static auto* instance = new Staging;
  return *instance;
}

void copy_to_device(std::byte* to, const std::byte* from, std::size_t bytes) {
  const Range range("copy to the device");
  const std::lock_guard lock(staging().mutex);
  for (std::size_t at = 0; at < bytes; at += kStagingBytes) {
    const std::size_t count = std::min(kStagingBytes, bytes - at);
    Staging::Block& block = staging().next();
    std::memcpy(block.memory, from + at, count);
    CUDA_CHECK(
        cudaMemcpyAsync(to + at, block.memory, count, cudaMemcpyHostToDevice, compute_stream()));
    CUDA_CHECK(cudaEventRecord(block.done, compute_stream()));
  }
}

void copy_to_host(std::byte* to, const std::byte* from, std::size_t bytes) {
  const Range range("copy to the host");
  const std::lock_guard lock(staging().mutex);
  for (std::size_t at = 0; at < bytes; at += kStagingBytes) {
    const std::size_t count = std::min(kStagingBytes, bytes - at);
    Staging::Block& block = staging().next();
    CUDA_CHECK(
        cudaMemcpyAsync(block.memory, from + at, count, cudaMemcpyDeviceToHost, compute_stream()));
    CUDA_CHECK(cudaEventRecord(block.done, compute_stream()));
    CUDA_CHECK(cudaEventSynchronize(block.done));
    std::memcpy(to + at, block.memory, count);
  }
}

void copy(void* to, Device to_device, const void* from, Device from_device, std::size_t bytes) {
  auto* target = static_cast<std::byte*>(to);
  const auto* source = static_cast<const std::byte*>(from);
  if (to_device.type == DeviceType::cpu) return copy_to_host(target, source, bytes);
  if (from_device.type == DeviceType::cpu) return copy_to_device(target, source, bytes);
  CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, compute_stream()));
}

void zero(void* data, std::size_t bytes, Device) {
  CUDA_CHECK(cudaMemsetAsync(data, 0, bytes, compute_stream()));
}

void convert_elements(const Tensor& from, const Tensor& to) {
  if (from.dtype() == to.dtype() && from.is_contiguous() && to.is_contiguous())
    return copy(to.raw(), to.device(), from.raw(), from.device(), to.bytes());
  convert_strided(from, to);
}

void synchronize(Device) { CUDA_CHECK(cudaStreamSynchronize(compute_stream())); }

}  // namespace

DeviceBackend backend() {
  return {.allocate = [](std::size_t bytes, Device) { return allocate(bytes); },
          .free = [](void* block, std::size_t, Device) noexcept { release(block); },
          .copy = copy,
          .zero = zero,
          .convert = convert_elements,
          .fill = fill_elements,
          .compute_queue = [](Device) -> void* { return compute_stream(); },
          .synchronize = synchronize,
          .statistics = [](Device) { return allocator_statistics(); },
          .reset_peak = [](Device) { reset_allocator_peak(); },
          .start_trace = [](Device) { start_trace(); },
          .stop_trace = [](Device) { return stop_trace(); }};
}

Tensor on_device(const Tensor& tensor, Device device) {
  if (!tensor.defined() || tensor.device() == device) return tensor;
  struct Kept {
    std::uint64_t version;
    std::int64_t offset;
    Tensor copy;
  };
  const std::string key = "copy on " + to_string(device);
  const std::uint64_t version = tensor.storage()->version();
  const auto kept = std::static_pointer_cast<Kept>(tensor.storage()->attachment(key));
  if (kept != nullptr && kept->version == version && kept->offset == tensor.offset() &&
      kept->copy.shape() == tensor.shape() && kept->copy.dtype() == tensor.dtype())
    return kept->copy;
  Tensor copy = tensor.to(device);
  tensor.storage()->attach(key, std::make_shared<Kept>(Kept{version, tensor.offset(), copy}));
  return copy;
}

}  // namespace lectern::cuda
