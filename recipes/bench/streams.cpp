#include "recipes/bench/streams.h"

#include "autograd/ops/sinkhorn.h"
#include "core/parallel.h"
#include "core/random.h"
#include "core/statistics.h"
#include "core/stopwatch.h"
#include "nn/blocks/transformer_block.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

namespace lectern {
namespace {

constexpr std::int64_t kWidth = 1280, kStreams = 4;

Tensor random_normal(const Shape& shape, const char* stream) {
  const Tensor out = Tensor::empty(shape);
  Random(0, stream).fill_normal(out, 0, 1);
  return out;
}

class Timer {
 public:
  template <typename F>
  void run(F&& f) {
    const Stopwatch watch;
    f();
    seconds_.push_back(watch.seconds());
  }
  double min() const { return rounded(*std::min_element(seconds_.begin(), seconds_.end())); }
  double median() const { return rounded(lectern::median(seconds_)); }

 private:
  static double rounded(double seconds) { return std::round(seconds * 1e6) / 1e6; }
  std::vector<double> seconds_;
};

template <typename F>
Timer timed(std::int64_t repeat, F&& f) {
  f();
  Timer timer;
  for (std::int64_t i = 0; i < repeat; ++i) timer.run(f);
  return timer;
}

nlohmann::ordered_json bench_sinkhorn(const BenchStreamsArgs& args) {
  const Tensor values = random_normal({args.sinkhorn_tokens, kStreams, kStreams}, "bench/logits");
  const Tensor cotangent = random_normal(values.shape(), "bench/cotangent");
  const Timer timer = timed(args.repeat, [&] {
    const Variable logits(values, true);
    sinkhorn(logits, {}).backward(cotangent);
  });
  return {{"what", "sinkhorn"},
          {"tokens", args.sinkhorn_tokens},
          {"iterations", 20},
          {"seconds_min", timer.min()},
          {"seconds_median", timer.median()}};
}

/// Coefficients, Sinkhorn, pre, post and residual mix; expanding the streams is in it, as in the
/// peer.
nlohmann::ordered_json bench_sub_layer(const BenchStreamsArgs& args) {
  ParameterStore store(0);
  const ResidualConnection residual(store, "hc.", {.kind = ResidualKind::mhc}, kWidth, 0);
  const Tensor x = random_normal({1, args.tokens, kWidth}, "bench/x");
  const Tensor cotangent = random_normal({1, args.tokens, kStreams, kWidth}, "bench/cotangent");
  const Timer timer = timed(args.repeat, [&] {
    ForwardContext context;
    const Streams streams = expand_streams(Variable(x, true), kStreams);
    residual
        .around(
            streams, [](const Variable& input) { return input; }, context)
        .graph.backward(cotangent);
    store.clear_gradients();
  });
  return {{"what", "mhc sub-layer alone"},
          {"tokens", args.tokens},
          {"hidden", kWidth},
          {"streams", kStreams},
          {"seconds_min", timer.min()},
          {"seconds_median", timer.median()}};
}

/// One layer of the OCR decoder in a store of its own.
struct DecoderLayer {
  ParameterStore store{0};
  ResidualConfig residual;
  TransformerBlock block;

  explicit DecoderLayer(const ResidualConfig& config)
      : residual(config),
        block(
            store, "layer.", 1,
            {.hidden_size = kWidth,
             .heads = 10,
             .kv_heads = 10,
             .head_dim = 128,
             .intermediate_size = 6848,
             .residual = config},
            MoeArgs{
                .routed_experts = 64, .shared_experts = 2, .top_k = 6, .intermediate_size = 896}) {}

  void run(const Tensor& x, const Tensor& cotangent) {
    ForwardContext context;
    const Variable leaf(x, true);
    const Streams in = residual.is_plain() ? Streams(leaf) : expand_streams(leaf, kStreams);
    block.forward(in, {}, context).graph.backward(cotangent);
    store.clear_gradients();
  }
};

nlohmann::ordered_json bench_layer(const BenchStreamsArgs& args) {
  DecoderLayer plain({}), mhc({.kind = ResidualKind::mhc});
  const Tensor x = random_normal({1, args.tokens, kWidth}, "bench/x");
  const Tensor cotangent = random_normal({1, args.tokens, kWidth}, "bench/cotangent");
  const Tensor wide = random_normal({1, args.tokens, kStreams, kWidth}, "bench/cotangent");
  plain.run(x, cotangent);
  mhc.run(x, wide);
  // In turn, so that a drifting clock or a busy neighbour hits both.
  Timer plain_timer, mhc_timer;
  for (std::int64_t i = 0; i < args.repeat; ++i) {
    plain_timer.run([&] { plain.run(x, cotangent); });
    mhc_timer.run([&] { mhc.run(x, wide); });
  }
  const double overhead = mhc_timer.min() / plain_timer.min() - 1;
  return {{"what", "decoder layer"},
          {"tokens", args.tokens},
          {"plain_min", plain_timer.min()},
          {"mhc_min", mhc_timer.min()},
          {"plain_median", plain_timer.median()},
          {"mhc_median", mhc_timer.median()},
          {"overhead", std::round(overhead * 1e4) / 1e4}};
}

}  // namespace

std::vector<nlohmann::ordered_json> bench_streams(const BenchStreamsArgs& args) {
  if (args.threads > 0) set_thread_count(static_cast<int>(args.threads));
  return {bench_sinkhorn(args), bench_sub_layer(args), bench_layer(args)};
}

}  // namespace lectern
