#include "cuda/trace.h"

#include "cuda/streams.h"

#include <memory>

namespace lectern::cuda {
namespace {

constexpr std::size_t kNoRange = static_cast<std::size_t>(-1);

cudaEvent_t recorded() {
  cudaEvent_t event = nullptr;
  CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDefault));
  CUDA_CHECK(cudaEventRecord(event, compute_stream()));
  return event;
}

struct TracedRange {
  const char* name;
  cudaEvent_t begin, end;
};

struct Trace {
  cudaEvent_t begin = nullptr;
  std::vector<TracedRange> ranges;

  ~Trace() {
    (void)cudaEventDestroy(begin);
    for (const TracedRange& range : ranges) {
      (void)cudaEventDestroy(range.begin);
      if (range.end != nullptr) (void)cudaEventDestroy(range.end);
    }
  }
  double seconds_until(cudaEvent_t event) const {
    float milliseconds = 0;
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin, event));
    return static_cast<double>(milliseconds) * 1e-3;
  }
};

std::unique_ptr<Trace> active;

}  // namespace

void start_trace() {
  CUDA_CHECK(cudaStreamSynchronize(compute_stream()));
  active = std::make_unique<Trace>();
  active->begin = recorded();
}

std::vector<ProfileSpan> stop_trace() {
  std::vector<ProfileSpan> out;
  if (active == nullptr) return out;
  CUDA_CHECK(cudaStreamSynchronize(compute_stream()));
  const std::unique_ptr<Trace> trace = std::move(active);
  for (const TracedRange& range : trace->ranges) {
    if (range.end == nullptr) continue;  // its call failed
    const double begin = trace->seconds_until(range.begin);
    out.push_back(
        {range.name, ProfileSpan::Kind::device, begin, trace->seconds_until(range.end) - begin});
  }
  return out;
}

std::size_t begin_traced_range(const char* name) {
  if (active == nullptr) return kNoRange;
  active->ranges.push_back({name, recorded(), nullptr});
  return active->ranges.size() - 1;
}

void end_traced_range(std::size_t range) noexcept {
  if (range == kNoRange || active == nullptr || range >= active->ranges.size()) return;
  try {
    active->ranges[range].end = recorded();
  } catch (const CudaError&) {
    // Destructors do not throw; the next call reports what is wrong with the device.
  }
}

}  // namespace lectern::cuda
