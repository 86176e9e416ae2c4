// The routed experts at the sizes of the small models and of the published one, and one token as in
// decoding. Operations of a forward pass: 6 N K C I (three products of N K rows: gate, up, down);
// backward has two products for each of them.
#include "core/ops/convert.h"
#include "core/ops/experts.h"
#include "core/random.h"

#include <benchmark/benchmark.h>

#include <vector>

namespace lectern {
namespace {

struct Problem {
  ExpertsInput input;
  Tensor grad_out;
  double operations;  // of one forward pass
};

/// range: tokens, width, inner, experts, top_k
Problem make_problem(const benchmark::State& state) {
  const std::int64_t tokens = state.range(0), width = state.range(1), inner = state.range(2);
  const std::int64_t experts = state.range(3), top_k = state.range(4);
  Problem p;
  p.input = {Tensor::empty({tokens, width}), Tensor::full({tokens, top_k}, 0.2),
             Tensor::empty({tokens, top_k}, DType::i32), Tensor::empty({experts, 2 * inner, width}),
             Tensor::empty({experts, width, inner})};
  p.grad_out = Tensor::empty({tokens, width});
  Random random(1, "bench");
  random.fill_normal(p.input.x, 0, 1);
  random.fill_normal(p.input.gate_up, 0, 0.02);
  random.fill_normal(p.input.down, 0, 0.02);
  random.fill_normal(p.grad_out, 0, 1);
  for (std::int64_t n = 0; n < tokens; ++n) {
    const auto first = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(experts)));
    for (std::int64_t k = 0; k < top_k; ++k)
      p.input.indices.data<std::int32_t>()[n * top_k + k] =
          static_cast<std::int32_t>((first + k * (1 + n % 3)) % experts);
  }
  p.operations = 6.0 * static_cast<double>(tokens * top_k * width * inner);
  return p;
}

void report(benchmark::State& state, double operations) {
  state.counters["GFLOP/s"] = benchmark::Counter(
      operations * 1e-9 * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

void round_operands(ExpertsInput& input) {
  for (Tensor* tensor : {&input.x, &input.gate_up, &input.down})
    *tensor = convert(*tensor, DType::bf16);
}

void forward(benchmark::State& state, DType dtype) {
  Problem p = make_problem(state);
  if (dtype == DType::bf16) round_operands(p.input);
  for (auto _ : state) benchmark::DoNotOptimize(experts_forward(p.input, false));
  report(state, p.operations);
}

void forward_backward(benchmark::State& state, DType dtype) {
  Problem p = make_problem(state);
  if (dtype == DType::bf16) round_operands(p.input);
  for (auto _ : state) {
    const ExpertsResult result = experts_forward(p.input, true);
    benchmark::DoNotOptimize(experts_backward(p.grad_out, p.input, result, ExpertsWanted{}));
  }
  report(state, 3 * p.operations);
}

constexpr auto kUnit = benchmark::kMillisecond;
void forward_shapes(benchmark::internal::Benchmark* bench) {
  bench->Args({900, 256, 128, 16, 4})->Args({1, 256, 128, 16, 4})->Args({1, 1280, 896, 64, 6});
}
void training_shapes(benchmark::internal::Benchmark* bench) {
  bench->Args({900, 256, 128, 16, 4})->Args({512, 1280, 896, 16, 4});
}
BENCHMARK_CAPTURE(forward, f32, DType::f32)->Apply(forward_shapes)->Unit(kUnit)->UseRealTime();
BENCHMARK_CAPTURE(forward, bf16, DType::bf16)->Apply(forward_shapes)->Unit(kUnit)->UseRealTime();
BENCHMARK_CAPTURE(forward_backward, f32, DType::f32)
    ->Apply(training_shapes)
    ->Unit(kUnit)
    ->UseRealTime();
BENCHMARK_CAPTURE(forward_backward, bf16, DType::bf16)
    ->Apply(training_shapes)
    ->Unit(kUnit)
    ->UseRealTime();

}  // namespace
}  // namespace lectern

BENCHMARK_MAIN();
