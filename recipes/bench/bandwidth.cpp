#include "core/error.h"
#include "core/io/file.h"
#include "core/parallel.h"
#include "core/stopwatch.h"
#include "core/tensor.h"
#include "recipes/bench/generate.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace lectern {
namespace {

typedef std::uint64_t Words __attribute__((vector_size(64)));

/// Adds up memory, so that no read can be left out.
std::uint64_t sum_of(const char* data, std::int64_t bytes) {
  constexpr int kStreams = 8;
  Words sum[kStreams] = {};
  for (std::int64_t at = 0; at + kStreams * 64 <= bytes; at += kStreams * 64)
    for (int s = 0; s < kStreams; ++s) {
      Words words;
      std::memcpy(&words, data + at + s * 64, sizeof words);
      sum[s] += words;
    }
  std::uint64_t total = 0;
  for (const Words& words : sum)
    for (int lane = 0; lane < 8; ++lane) total += words[lane];
  return total;
}

/// Best of `passes` over the memory, each thread reading its own part.
double best_rate(const char* data, std::int64_t bytes, int passes) {
  double best = 0;
  volatile std::uint64_t sink = 0;
  for (int pass = 0; pass < passes; ++pass) {
    const Stopwatch watch;
    parallel_for(bytes / 4096, 1, [&](std::int64_t begin, std::int64_t end) {
      sink = sum_of(data + begin * 4096, (end - begin) * 4096);
    });
    best = std::max(best, static_cast<double>(bytes) / watch.seconds());
  }
  return std::round(best);
}

}  // namespace

nlohmann::ordered_json bench_bandwidth(std::int64_t threads, const std::filesystem::path& file) {
  constexpr std::int64_t kBytes = std::int64_t{1} << 30;
  constexpr int kPasses = 8, kFilePasses = 3;
  if (threads > 0) set_thread_count(static_cast<int>(threads));
  nlohmann::ordered_json out = {{"threads", thread_count()}};
  {
    const Tensor memory = Tensor::zeros({kBytes}, DType::u8);
    out["memory_bytes_per_second"] =
        best_rate(static_cast<const char*>(memory.raw()), kBytes, kPasses);
  }
  if (file.empty()) return out;
  const MappedFile mapped = map_file(file);
  out["mapped_bytes_per_second"] =
      best_rate(reinterpret_cast<const char*>(mapped.bytes.data()),
                static_cast<std::int64_t>(mapped.bytes.size()), kFilePasses);
  return out;
}

}  // namespace lectern
