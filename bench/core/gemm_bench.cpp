// gemm, gemm_bf16 and oneDNN's matmul in both dtypes: GFLOP/s (2 m n k) at the three products of a
// training step. Passes: nt is forward (y = x W^T), nn the gradient of x, tn that of W.
#include "core/cpu/dnnl_support.h"
#include "core/cpu/gemm.h"
#include "core/cpu/gemm_bf16.h"
#include "core/ops/convert.h"
#include "core/random.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>

namespace lectern {
namespace {

struct Operands {
  Operands(const benchmark::State& state, bool ta, bool tb, DType dtype)
      : args{.transpose_a = ta,
             .transpose_b = tb,
             .m = state.range(0),
             .n = state.range(1),
             .k = state.range(2),
             .lda = ta ? state.range(0) : state.range(2),
             .ldb = tb ? state.range(2) : state.range(1),
             .ldc = state.range(1)},
        a(random({args.m * args.k}, dtype)),
        b(random({args.n * args.k}, dtype)),
        c(Tensor::zeros({args.m, args.n})) {}

  static Tensor random(const Shape& shape, DType dtype) {
    Tensor out = Tensor::empty(shape);
    Random(1, to_string(shape)).fill_normal(out, 0, 1);
    return convert(out, dtype);
  }

  GemmArgs args;
  Tensor a, b, c;
};

/// Reports the rate of the mean and, for machines that do other work at the same time, of the
/// fastest run.
template <typename F>
void measure(benchmark::State& state, const GemmArgs& args, F&& f) {
  using Clock = std::chrono::steady_clock;
  double best = 1e30;
  for (auto _ : state) {
    const auto start = Clock::now();
    f();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  const double work = 2e-9 * static_cast<double>(args.m * args.n * args.k);
  state.counters["GF/s"] = benchmark::Counter(work * static_cast<double>(state.iterations()),
                                              benchmark::Counter::kIsRate);
  state.counters["best"] = work / best;
}

void run_f32(benchmark::State& state, bool ta, bool tb) {
  const Operands o(state, ta, tb, DType::f32);
  measure(state, o.args,
          [&] { gemm(o.args, o.a.data<float>(), o.b.data<float>(), o.c.data<float>()); });
}

void run_bf16(benchmark::State& state, bool ta, bool tb) {
  const Operands o(state, ta, tb, DType::bf16);
  measure(state, o.args, [&] {
    gemm_bf16(o.args, o.a.data<BFloat16>(), o.b.data<BFloat16>(), o.c.data<float>());
  });
}

/// The library with plain operands; the primitive is made once, outside the timing.
void run_onednn(benchmark::State& state, bool ta, bool tb, DType dtype) {
  using dnnl::memory;
  const Operands o(state, ta, tb, dtype);
  const auto type = dtype == DType::f32 ? memory::data_type::f32 : memory::data_type::bf16;
  const auto matrix = [&](std::int64_t rows, std::int64_t columns, std::int64_t pitch,
                          bool turned) {
    return memory::desc({rows, columns}, type,
                        turned ? memory::dims{1, pitch} : memory::dims{pitch, 1});
  };
  const memory::desc a = matrix(o.args.m, o.args.k, o.args.lda, ta);
  const memory::desc b = matrix(o.args.k, o.args.n, o.args.ldb, tb);
  const memory::desc c({o.args.m, o.args.n}, memory::data_type::f32, memory::dims{o.args.ldc, 1});
  const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(a, b, c), dnnl_attributes(),
                                                 dnnl_engine());
  const dnnl::matmul primitive(description);
  state.SetLabel(description.impl_info_str());
  measure(state, o.args, [&] {
    dnnl_run(primitive, description.scratchpad_desc(),
             {{DNNL_ARG_SRC, dnnl_memory(a, o.a.raw())},
              {DNNL_ARG_WEIGHTS, dnnl_memory(b, o.b.raw())},
              {DNNL_ARG_DST, dnnl_memory(c, o.c.raw())}});
  });
}

/// m, n, k as op(A) op(B) sees them.
void forward_shapes(benchmark::internal::Benchmark* bench) {
  bench
      ->Args({2048, 2048, 2048})  // the peak
      ->Args({8704, 768, 192})    // small SAM, MLP
      ->Args({801, 1536, 256})    // small decoder, dense MLP
      ->Args({200, 256, 256})     // small decoder, one expert
      ->Args({4096, 3072, 768})   // SAM-base, MLP
      ->Args({1, 2560, 1280});    // full size, one token
}
void weight_gradient_shapes(benchmark::internal::Benchmark* bench) {
  bench->Args({2048, 2048, 2048})
      ->Args({768, 192, 8704})
      ->Args({1536, 256, 801})
      ->Args({256, 256, 200})
      ->Args({3072, 768, 4096});
}

BENCHMARK_CAPTURE(run_f32, nt, false, true)->Apply(forward_shapes)->UseRealTime();
BENCHMARK_CAPTURE(run_bf16, nt, false, true)->Apply(forward_shapes)->UseRealTime();
BENCHMARK_CAPTURE(run_onednn, nt_f32, false, true, DType::f32)
    ->Apply(forward_shapes)
    ->UseRealTime();
BENCHMARK_CAPTURE(run_onednn, nt_bf16, false, true, DType::bf16)
    ->Apply(forward_shapes)
    ->UseRealTime();
BENCHMARK_CAPTURE(run_f32, nn, false, false)->Apply(forward_shapes)->UseRealTime();
BENCHMARK_CAPTURE(run_bf16, nn, false, false)->Apply(forward_shapes)->UseRealTime();
BENCHMARK_CAPTURE(run_onednn, nn_bf16, false, false, DType::bf16)
    ->Apply(forward_shapes)
    ->UseRealTime();
BENCHMARK_CAPTURE(run_f32, tn, true, false)->Apply(weight_gradient_shapes)->UseRealTime();
BENCHMARK_CAPTURE(run_bf16, tn, true, false)->Apply(weight_gradient_shapes)->UseRealTime();
BENCHMARK_CAPTURE(run_onednn, tn_bf16, true, false, DType::bf16)
    ->Apply(weight_gradient_shapes)
    ->UseRealTime();

}  // namespace
}  // namespace lectern

BENCHMARK_MAIN();
