#include "recipes/checkpoint/tensor_copies.h"

#include "core/error.h"
#include "core/parallel.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <memory>

namespace lectern {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kPieceBytes = std::size_t{4} << 20;

std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

std::shared_ptr<void> mapped_memory(std::size_t bytes) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    fail<MemoryError>(
        fmt::format("checkpoint: cannot get {} bytes to put weights and moments aside; "
                    "checkpoint.asynchronous = false needs none",
                    bytes));
  ::madvise(memory, bytes, MADV_HUGEPAGE);
  return {memory, [bytes](void* at) { ::munmap(at, bytes); }};
}

}  // namespace

TensorCopies::TensorCopies(const std::vector<Source>& sources) {
  std::vector<Tensor> later(sources.size());
  for (std::size_t i = 0; i < sources.size(); ++i) {
    // A GPU has work in its queue that changes the tensor: no thread may read it later.
    const Tensor here = sources[i].tensor.to(Device{}).contiguous();
    tensors_.emplace_back(sources[i].name, here);
    if (!sources[i].changes || here.storage() != sources[i].tensor.storage()) continue;
    later[i] = here;
    bytes_ += aligned(here.bytes());
  }
  if (bytes_ == 0) return;
  const std::shared_ptr<void> memory = mapped_memory(bytes_);
  char* to = static_cast<char*>(memory.get());
  for (std::size_t i = 0; i < sources.size(); ++i) {
    if (!later[i].defined()) continue;
    const auto* from = static_cast<const char*>(later[i].raw());
    const std::size_t bytes = later[i].bytes();
    tensors_[i].second = Tensor::wrap(to, later[i].shape(), later[i].dtype(), memory);
    for (std::size_t at = 0; at < bytes; at += kPieceBytes)
      pieces_.push_back({from + at, to + at, std::min(kPieceBytes, bytes - at)});
    to += aligned(bytes);
    sources_.push_back(std::move(later[i]));
  }
}

void TensorCopies::work() {
  for (std::size_t i = next_.fetch_add(1); i < pieces_.size(); i = next_.fetch_add(1)) {
    std::memcpy(pieces_[i].to, pieces_[i].from, pieces_[i].bytes);
    if (done_.fetch_add(1) + 1 == pieces_.size()) done_.notify_all();
  }
}

void TensorCopies::wait() {
  for (std::size_t done = done_.load(); done < pieces_.size(); done = done_.load())
    done_.wait(done);
}

void TensorCopies::finish() {
  if (done_.load() == pieces_.size()) return;
  parallel_for(thread_count(), 1, [this](std::int64_t, std::int64_t) { work(); });
  wait();
}

}  // namespace lectern
