#include "core/ops/dropout.h"

#include "core/ops/dropout_math.h"
#include "core/parallel.h"

#include <algorithm>

namespace lectern {
namespace {

void forward_cpu(const Tensor& x, double probability, const RandomKey& key, const Tensor& out) {
  constexpr std::int64_t kGrain = 1 << 11;  // blocks of four
  const std::uint32_t threshold = dropout_math::threshold(probability);
  dispatch_floating(x.dtype(), "dropout", [&]<typename T>() {
    const T* from = x.data<T>();
    T* to = out.data<T>();
    const std::int64_t n = x.numel();
    const T factor = static_cast<T>(1.0 / (1.0 - probability));
    parallel_for((n + 3) / 4, kGrain, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t block = begin; block < end; ++block) {
        const philox::Words words = dropout_math::words(block, key);
        const std::int64_t first = 4 * block, count = std::min<std::int64_t>(4, n - first);
        for (std::int64_t i = 0; i < count; ++i)
          to[first + i] = words.word[i] < threshold ? T{0} : from[first + i] * factor;
      }
    });
  });
}

}  // namespace

KernelTable<DropoutKernels>& dropout_table() {
  static KernelTable<DropoutKernels> instance("dropout", {forward_cpu});
  return instance;
}

Tensor dropout(const Tensor& x, double probability, const RandomKey& key) {
  if (!(probability >= 0 && probability < 1))
    fail<ConfigError>(
        fmt::format("dropout: probability must be 0 or more and below 1, got {}", probability));
  Tensor out = Tensor::empty(x.shape(), x.dtype(), x.device());
  dropout_table().at(x.device()).forward(x.contiguous(), probability, key, out);
  return out;
}

}  // namespace lectern
