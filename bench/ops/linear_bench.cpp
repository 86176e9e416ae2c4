// linear and conv2d in f32: GFLOP/s at the shapes of the small benchmark model and the real one.
// Work: 2 M N K for each product; 2 N H' W' O kh kw C for a convolution.
#include "core/ops/conv2d.h"
#include "core/ops/linear.h"
#include "core/random.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>

namespace lectern {
namespace {

Tensor random_tensor(const Shape& shape) {
  Tensor out = Tensor::empty(shape);
  Random(1, to_string(shape)).fill_normal(out, 0, 1);
  return out;
}

/// Runs f in the benchmark's loop; reports the rate of its mean and, for machines that do other
/// work at the same time, of its fastest run.
template <typename F>
void measure(benchmark::State& state, double products, F&& f) {
  using Clock = std::chrono::steady_clock;
  double best = 1e30;
  for (auto _ : state) {
    const auto start = Clock::now();
    const Tensor out = f();
    benchmark::DoNotOptimize(out.raw());
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  state.counters["GF/s"] =
      benchmark::Counter(2e-9 * products * double(state.iterations()), benchmark::Counter::kIsRate);
  state.counters["best"] = 2e-9 * products / best;
}

enum class Pass { forward, packed, grad_x, grad_weight };

void run_linear(benchmark::State& state, Pass pass, bool has_bias) {
  const std::int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  const Tensor x = random_tensor({m, k}), w = random_tensor({n, k}), g = random_tensor({m, n});
  const Tensor b = has_bias ? random_tensor({n}) : Tensor();
  measure(state, double(m) * double(n) * double(k), [&] {
    switch (pass) {
      case Pass::packed:
        return linear(x, w, b, WeightUse::constant);
      case Pass::grad_x:
        return linear_grad_x(g, w);
      case Pass::grad_weight:
        return linear_grad_weight(g, x);
      default:
        return linear(x, w, b);
    }
  });
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"M", "N", "K"})->UseRealTime()->MinTime(0.2);
  // Small model: SAM qkv, up, down; LM encoder; decoder up, down; an expert; the head.
  b->Args({4096, 576, 192})->Args({4096, 768, 192})->Args({4096, 192, 768});
  b->Args({512, 256, 256})->Args({512, 768, 256})->Args({800, 768, 256})->Args({800, 256, 768});
  b->Args({200, 128, 256})->Args({400, 8192, 256});
  // Full size: SAM up on one view, an expert at prefill, small batches, one token.
  b->Args({1024, 3072, 768})->Args({105, 896, 1280})->Args({64, 3072, 768})->Args({8, 3072, 768});
  b->Args({1, 3072, 768})->Args({1, 8192, 256})->Args({1, 6848, 1280});
}

BENCHMARK_CAPTURE(run_linear, forward, Pass::forward, true)->Apply(shapes);
BENCHMARK_CAPTURE(run_linear, packed, Pass::packed, true)->Apply(shapes);
BENCHMARK_CAPTURE(run_linear, grad_x, Pass::grad_x, false)->Apply(shapes);
BENCHMARK_CAPTURE(run_linear, grad_weight, Pass::grad_weight, false)->Apply(shapes);

void run_conv2d(benchmark::State& state, Pass pass) {
  const std::int64_t side = state.range(0), c = state.range(1), o = state.range(2);
  const Conv2dArgs args{static_cast<int>(state.range(3)), 1};
  const Tensor x = random_tensor({1, side, side, c}), w = random_tensor({o, c, 3, 3});
  const Tensor y = conv2d(x, w, {}, args);
  measure(state, double(y.numel()) * 9.0 * double(c), [&] {
    return pass == Pass::forward  ? conv2d(x, w, {}, args)
           : pass == Pass::grad_x ? conv2d_grad_x(y, w, x.shape(), args)
                                  : conv2d_grad_weight(y, x, w.shape(), args);
  });
}

void conv2d_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"side", "C", "O", "stride"})->UseRealTime()->MinTime(0.2);
  b->Args({64, 64, 64, 1})->Args({64, 64, 128, 2})->Args({32, 128, 256, 2});     // small model
  b->Args({64, 256, 256, 1})->Args({64, 256, 512, 2})->Args({32, 512, 896, 2});  // full size
}

BENCHMARK_CAPTURE(run_conv2d, forward, Pass::forward)->Apply(conv2d_shapes);
BENCHMARK_CAPTURE(run_conv2d, grad_x, Pass::grad_x)->Apply(conv2d_shapes);
BENCHMARK_CAPTURE(run_conv2d, grad_weight, Pass::grad_weight)->Apply(conv2d_shapes);

}  // namespace
}  // namespace lectern
BENCHMARK_MAIN();
