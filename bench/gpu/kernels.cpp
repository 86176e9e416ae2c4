// Single kernels on a GPU against what the card can do: memory-bound ones in bytes a second beside
// a copy, attention in operations a second beside a large bf16 product. Bytes are those that must
// move (each input read once, each output written once), operations those of the products.
//
//   gpu.kernels            real sizes, about a minute
//   gpu.kernels --small    tiny sizes, once each: does the program run
#include "core/device_backend.h"
#include "core/ops/adamw.h"
#include "core/ops/attention.h"
#include "core/ops/layer_norm.h"
#include "core/ops/linear.h"
#include "core/ops/rms_norm.h"
#include "core/ops/rope.h"
#include "core/ops/sinkhorn.h"
#include "core/ops/stream_read.h"
#include "core/ops/stream_write.h"
#include "core/ops/swiglu.h"
#include "cuda/register.h"

#include <fmt/core.h>

#include <chrono>
#include <cmath>
#include <string_view>
#include <vector>

namespace lectern {
namespace {

class Bench {
 public:
  explicit Bench(bool small) : small_(small) {
    register_cuda();
    fmt::print("| kernel | shape | ms | rate | of the card |\n|---|---|---|---|---|\n");
  }

  bool is_small() const { return small_; }
  Tensor tensor(const Shape& shape, DType dtype = DType::f32, double value = 0.01) const {
    return Tensor::full(shape, value, dtype, device_);
  }

  /// Seconds a call, of enough calls one after the other.
  template <typename F>
  double seconds_of(F&& f) const {
    using Clock = std::chrono::steady_clock;
    const auto wait = [this] { device_backend(device_).synchronize(device_); };
    f();
    wait();
    for (int calls = 1;; calls *= 2) {
      const auto start = Clock::now();
      for (int i = 0; i < calls; ++i) f();
      wait();
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      if (small_ || seconds > 0.2) return seconds / calls;
    }
  }

  /// The first call sets what the card can do.
  template <typename F>
  void bytes(std::string_view name, const Tensor& shown, double bytes, F&& f) {
    report(name, shown, bytes, seconds_of(f), bytes_a_second_, 1e-9, "GB/s");
  }
  template <typename F>
  void operations(std::string_view name, const Tensor& shown, double operations, F&& f) {
    report(name, shown, operations, seconds_of(f), operations_a_second_, 1e-12, "TFLOP/s");
  }

 private:
  static void report(std::string_view name, const Tensor& shown, double work, double seconds,
                     double& best, double unit, std::string_view unit_name) {
    if (best == 0) best = work / seconds;
    fmt::print("| {} | {} | {:.4f} | {:.1f} {} | {:.1f} % |\n", name, shown.describe(),
               seconds * 1e3, work / seconds * unit, unit_name, work / seconds / best * 100);
  }

  bool small_;
  Device device_{DeviceType::cuda, 0};
  double bytes_a_second_ = 0, operations_a_second_ = 0;
};

double bytes_of(std::initializer_list<Tensor> tensors) {
  double out = 0;
  for (const Tensor& tensor : tensors) out += static_cast<double>(tensor.bytes());
  return out;
}

void norms(Bench& bench, std::int64_t tokens, std::int64_t width) {
  const Tensor x = bench.tensor({tokens, width}), grad = bench.tensor({tokens, width});
  const Tensor weight = bench.tensor({width}), bias = bench.tensor({width});
  const auto rms = rms_norm(x, weight, 1e-6);
  bench.bytes("rms_norm", x, bytes_of({x, x}), [&] { rms_norm(x, weight, 1e-6); });
  bench.bytes("rms_norm backward", x, bytes_of({x, grad, x}),
              [&] { rms_norm_backward(grad, x, weight, rms.inverse_rms, true, true); });
  const auto layer = layer_norm(x, weight, bias, 1e-6);
  bench.bytes("layer_norm", x, bytes_of({x, x}), [&] { layer_norm(x, weight, bias, 1e-6); });
  bench.bytes("layer_norm backward", x, bytes_of({x, grad, x}), [&] {
    layer_norm_backward(grad, {x, weight, layer.mean, layer.inverse_deviation}, true, true);
  });
}

void element_kernels(Bench& bench, std::int64_t tokens, std::int64_t width) {
  const std::int64_t heads = std::max<std::int64_t>(1, width / 128), dim = width / heads;
  const Tensor qkv = bench.tensor({1, tokens, 3 * heads * dim});
  const RopeArgs args{.heads = heads, .kv_heads = heads, .head_dim = dim};
  bench.bytes("rope, q and k in place", qkv, bytes_of({qkv, qkv}) * 2 / 3,
              [&] { rope_in_place(qkv, args); });
  const Tensor gate_up = bench.tensor({tokens, 2 * width}), grad = bench.tensor({tokens, width});
  bench.bytes("swiglu", gate_up, bytes_of({gate_up, grad}), [&] { swiglu(gate_up); });
  bench.bytes("swiglu backward", gate_up, bytes_of({gate_up, grad, gate_up}),
              [&] { swiglu_backward(grad, gate_up); });
  std::vector<AdamWParameter> parameters;
  for (int i = 0; i < 4; ++i)
    parameters.push_back({bench.tensor({tokens, width}), bench.tensor({tokens, width}),
                          bench.tensor({tokens, width}), bench.tensor({tokens, width})});
  const AdamWStep step{.learning_rate = 1e-5, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8};
  bench.bytes("adamw, 4 parameters", parameters[0].value, 4 * 7 * bytes_of({parameters[0].value}),
              [&] { adamw_update(parameters, step); });
}

void streams(Bench& bench, std::int64_t tokens, std::int64_t width, std::int64_t n) {
  const Tensor x = bench.tensor({tokens, n, width}), y = bench.tensor({tokens, width});
  const Tensor logits = bench.tensor({tokens, n, n}), post = bench.tensor({tokens, n});
  const StreamReadArgs args;
  const auto shapes = stream_parameter_shapes(args.mapping, n, width);
  const StreamParameters parameters{bench.tensor(shapes.fn), bench.tensor(shapes.base),
                                    bench.tensor(shapes.scale)};
  bench.bytes("sinkhorn, 20 iterations", logits, bytes_of({logits, logits}),
              [&] { sinkhorn(logits, {}); });
  bench.bytes("sinkhorn backward", logits, bytes_of({logits, logits, logits}),
              [&] { sinkhorn_backward(logits, logits, {}); });
  const auto read = stream_read(x, parameters, args);
  bench.bytes("stream_read", x, bytes_of({x, y}), [&] { stream_read(x, parameters, args); });
  bench.bytes("stream_read backward", x, bytes_of({x, x, y, x}),
              [&] { stream_read_backward(y, x, post, x, parameters, read, args); });
  bench.bytes("stream_write", x, bytes_of({x, y, x}), [&] { stream_write(x, logits, post, y); });
  bench.bytes("stream_write backward", x, bytes_of({x, y, y}),
              [&] { stream_write_backward(x, post, y); });
}

void attention(Bench& bench, std::int64_t tokens, std::int64_t heads, std::int64_t dim,
               MaskKind mask) {
  const Tensor qkv = bench.tensor({1, tokens, 3 * heads * dim}, DType::bf16);
  const AttentionArgs args{.heads = heads,
                           .kv_heads = heads,
                           .head_dim = dim,
                           .scale = 1 / std::sqrt(static_cast<double>(dim)),
                           .mask = mask};
  const double pairs = static_cast<double>(tokens) * static_cast<double>(tokens) *
                       (mask == MaskKind::causal ? 0.5 : 1.0);
  const double product = 2 * pairs * static_cast<double>(heads * dim);
  const std::string kind = fmt::format("{} {}", mask == MaskKind::causal ? "causal" : "full", dim);
  const auto saved = attention_forward(qkv, args);
  bench.operations("attention " + kind, qkv, 2 * product, [&] { attention_forward(qkv, args); });
  bench.operations("attention backward " + kind, qkv, 5 * product,
                   [&] { attention_backward(saved.out, qkv, saved, args); });
}

void run(bool small) {
  Bench bench(small);
  const std::int64_t tokens = small ? 20 : 32768, width = small ? 64 : 1280;
  const Tensor large = bench.tensor({tokens, 4 * width});
  bench.bytes("copy", large, bytes_of({large, large}), [&] { large.clone(); });
  norms(bench, tokens, width);
  element_kernels(bench, tokens, width);
  streams(bench, small ? 20 : 8192, width, 4);
  const std::int64_t size = small ? 32 : 8192;
  const Tensor matrix = bench.tensor({size, size}, DType::bf16);
  bench.operations("product, bf16", matrix, 2 * std::pow(static_cast<double>(size), 3),
                   [&] { linear(matrix, matrix); });
  for (const std::int64_t dim : {64, 128})
    for (const MaskKind mask : {MaskKind::full, MaskKind::causal})
      attention(bench, small ? 40 : 8192, small ? 1 : 1024 / dim, dim, mask);
}

}  // namespace
}  // namespace lectern

int main(int argc, char** argv) {
  if (const auto status = lectern::cuda_status(); status.devices.empty()) {
    fmt::print("skipped: {}\n", status.problem);
    return 0;
  }
  try {
    lectern::run(argc > 1 && std::string_view(argv[1]) == "--small");
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "gpu.kernels: {}\n", error.what());
    return 1;
  }
}
