#include "core/ops/dropout.h"
#include "core/ops/dropout_math.h"
#include "cuda/launch.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

namespace lectern::cuda {
namespace {

constexpr unsigned kThreads = 256;

/// A thread draws one block of words: it decides about four elements.
__global__ void dropout_kernel(Span<const float> x, Span<float> out, std::int64_t n,
                               std::uint32_t threshold, float factor, RandomKey key) {
  for (std::int64_t block = grid_thread(); block < (n + 3) / 4; block += grid_threads()) {
    const philox::Words words = dropout_math::words(block, key);
    for (int i = 0; i < 4; ++i) {
      const std::int64_t at = 4 * block + i;
      if (at < n) out[at] = words.word[i] < threshold ? 0.0F : x[at] * factor;
    }
  }
}

void forward(const Tensor& x, double probability, const RandomKey& key, const Tensor& out) {
  if (x.numel() == 0) return;
  check_dtype(x, DType::f32, "dropout", "x");
  launch("dropout", {grid_for((x.numel() + 3) / 4, kThreads), kThreads}, dropout_kernel,
         span<const float>(x), span<float>(out), x.numel(), dropout_math::threshold(probability),
         static_cast<float>(1.0 / (1.0 - probability)), key);
}

}  // namespace

void register_dropout() { dropout_table().set(DeviceType::cuda, {forward}); }

}  // namespace lectern::cuda
