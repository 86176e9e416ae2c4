// Attention at the shapes of the models: SAM's global blocks and windows, the LM encoder, the
// decoder. Time and GF/s of the matrix products that no mask removes (4 a score forward, 14 with
// backward: 2 + 5 products), one line for forward alone and one for forward and backward.
#include "core/ops/attention.h"
#include "core/random.h"

#include <benchmark/benchmark.h>

#include <cmath>

namespace lectern {
namespace {

struct Problem {
  std::int64_t batch, rows, heads, kv_heads, dim;
  MaskKind mask = MaskKind::full;
  std::int64_t prefix = 0, grid = 0;
};

Tensor random(const Shape& shape, std::string_view name) {
  const Tensor out = Tensor::empty(shape);
  Random(1, name).fill_normal(out, 0, 1);
  return out;
}

double visible_scores(const Problem& p) {
  const auto n = double(p.rows), m = double(p.prefix);
  if (p.mask == MaskKind::full) return n * n;
  if (p.mask == MaskKind::causal) return n * (n + 1) / 2;
  return m * m + (n * (n + 1) - m * (m + 1)) / 2;
}

void run(benchmark::State& state, const Problem& p, bool with_backward, bool rounded) {
  AttentionArgs args;
  args.heads = p.heads;
  args.kv_heads = p.kv_heads;
  args.head_dim = p.dim;
  args.scale = 1 / std::sqrt(double(p.dim));
  args.mask = p.mask;
  args.prefix = p.prefix;
  args.rounded = rounded;
  const Tensor qkv = random({p.batch, p.rows, (p.heads + 2 * p.kv_heads) * p.dim}, "qkv");
  const Tensor grad_out = random({p.batch, p.rows, p.heads * p.dim}, "grad_out");
  Tensor table_h, table_w;
  if (p.grid > 0) {
    table_h = random({2 * p.grid - 1, p.dim}, "h");
    table_w = random({2 * p.grid - 1, p.dim}, "w");
  }
  for (auto _ : state) {
    const AttentionResult result = attention_forward(qkv, args, table_h, table_w);
    benchmark::DoNotOptimize(result.out.raw());
    if (!with_backward) continue;
    const AttentionGradients gradients =
        attention_backward(grad_out, qkv, result, args, table_h, table_w);
    benchmark::DoNotOptimize(gradients.grad_qkv.raw());
  }
  const double flop = (with_backward ? 14.0 : 4.0) * double(p.batch * p.heads * p.dim) *
                      visible_scores(p) * double(state.iterations());
  state.counters["GF/s"] = benchmark::Counter(flop * 1e-9, benchmark::Counter::kIsRate);
}

const int kRegistered = [] {
  const std::pair<const char*, Problem> problems[] = {
      {"sam_global_64x64", {1, 4096, 4, 4, 48, MaskKind::full, 0, 64}},
      {"sam_global_48x48", {1, 2304, 4, 4, 48, MaskKind::full, 0, 48}},
      {"sam_windows_25x14x14", {25, 196, 4, 4, 48, MaskKind::full, 0, 14}},
      {"sam_base_global_64x64", {1, 4096, 12, 12, 64, MaskKind::full, 0, 64}},
      {"sam_base_windows", {25, 196, 12, 12, 64, MaskKind::full, 0, 14}},
      {"encoder_512", {1, 512, 4, 2, 64, MaskKind::prefix_causal, 256}},
      {"encoder_288", {2, 288, 4, 2, 64, MaskKind::prefix_causal, 144}},
      {"decoder_801", {1, 801, 4, 4, 64, MaskKind::causal}},
      {"decoder_801x128", {1, 801, 10, 10, 128, MaskKind::causal}},
  };
  for (const auto& [name, problem] : problems)
    for (const int variant : {0, 1, 2, 3}) {
      const bool backward = variant % 2 == 1, rounded = variant >= 2;
      benchmark::RegisterBenchmark(
          (std::string("attention/") + name + (rounded ? "/bf16" : "/f32") +
           (backward ? "/forward+backward" : "/forward"))
              .c_str(),
          [problem = problem, backward, rounded](benchmark::State& state) {
            run(state, problem, backward, rounded);
          })
          ->Unit(benchmark::kMillisecond)
          ->UseRealTime();
    }
  return 0;
}();

}  // namespace
}  // namespace lectern

BENCHMARK_MAIN();
