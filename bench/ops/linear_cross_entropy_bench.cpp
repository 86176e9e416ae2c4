// Loss and both gradients over a vocabulary: 3 products of 2 N V C operations with gradients, one
// without; the traffic floor is one read of the weight and one write of its gradient.
#include "core/ops/linear_cross_entropy.h"
#include "core/random.h"

#include <benchmark/benchmark.h>

namespace lectern {
namespace {

/// range: labelled rows, width, vocabulary
void run(benchmark::State& state, bool gradients) {
  const std::int64_t rows = state.range(0), width = state.range(1), classes = state.range(2);
  Tensor hidden = Tensor::empty({rows, width}), weight = Tensor::empty({classes, width});
  Tensor labels = Tensor::empty({rows}, DType::i32);
  Random random(1, "bench");
  random.fill_normal(hidden, 0, 1);
  random.fill_normal(weight, 0, 0.02);
  for (std::int64_t n = 0; n < rows; ++n)
    labels.data<std::int32_t>()[n] =
        static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(classes)));
  for (auto _ : state)
    benchmark::DoNotOptimize(
        linear_cross_entropy_forward(hidden, weight, labels, gradients, gradients));
  const double operations = (gradients ? 6.0 : 2.0) * static_cast<double>(rows * width * classes);
  state.counters["GFLOP/s"] = benchmark::Counter(
      operations * 1e-9 * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

void loss(benchmark::State& state) { run(state, false); }
void loss_and_gradients(benchmark::State& state) { run(state, true); }

constexpr auto kUnit = benchmark::kMillisecond;
BENCHMARK(loss)->Args({600, 256, 4096})->Unit(kUnit)->UseRealTime();
BENCHMARK(loss_and_gradients)
    ->Args({600, 256, 4096})
    ->Args({256, 512, 32768})
    ->Unit(kUnit)
    ->UseRealTime();

}  // namespace
}  // namespace lectern

BENCHMARK_MAIN();
