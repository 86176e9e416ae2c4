#include "core/ops/sinkhorn.h"

#include "core/ops/sinkhorn_cpu.h"
#include "core/parallel.h"

namespace lectern {

LECTERN_SINKHORN_BLOCKS(template)

namespace {

/// Calls f(matrices of a register as offset and count) over all matrices.
template <typename T, typename F>
void for_each_block(std::int64_t begin, std::int64_t end, F&& f) {
  constexpr std::int64_t kCount = Lanes<T>::kCount;
  for (std::int64_t block = begin * kCount; block < end * kCount; block += kCount) f(block);
}

template <typename T>
std::int64_t blocks_of(std::int64_t matrices) {
  return (matrices + Lanes<T>::kCount - 1) / Lanes<T>::kCount;
}

void forward_cpu(const Tensor& logits, const SinkhornArgs& args, const Tensor& output) {
  dispatch_floating(logits.dtype(), "sinkhorn", [&]<typename T>() {
    dispatch_streams(logits.dim(-1), [&]<int N>() {
      const std::int64_t matrices = logits.numel() / (N * N);
      const T* in = logits.data<T>();
      T* out = output.data<T>();
      parallel_for(blocks_of<T>(matrices), 8, [=, &args](std::int64_t begin, std::int64_t end) {
        SinkhornBlock<N, T> sinkhorn(args.convention, static_cast<int>(args.iterations));
        for_each_block<T>(begin, end, [&](std::int64_t first) {
          const int tokens =
              static_cast<int>(std::min<std::int64_t>(Lanes<T>::kCount, matrices - first));
          Lanes<T> l[N * N], m[N * N];
          load_tokens(in + first * N * N, N * N, tokens, l);
          sinkhorn.forward(l, m);
          store_tokens(m, N * N, tokens, out + first * N * N);
        });
      });
    });
  });
}

void backward_cpu(const Tensor& grad_output, const Tensor& logits, const SinkhornArgs& args,
                  const Tensor& grad_logits) {
  dispatch_floating(logits.dtype(), "sinkhorn", [&]<typename T>() {
    dispatch_streams(logits.dim(-1), [&]<int N>() {
      const std::int64_t matrices = logits.numel() / (N * N);
      const T *in = logits.data<T>(), *grad = grad_output.data<T>();
      T* out = grad_logits.data<T>();
      parallel_for(blocks_of<T>(matrices), 8, [=, &args](std::int64_t begin, std::int64_t end) {
        SinkhornBlock<N, T> sinkhorn(args.convention, static_cast<int>(args.iterations));
        for_each_block<T>(begin, end, [&](std::int64_t first) {
          const int tokens =
              static_cast<int>(std::min<std::int64_t>(Lanes<T>::kCount, matrices - first));
          Lanes<T> l[N * N], m[N * N], g[N * N];
          load_tokens(in + first * N * N, N * N, tokens, l);
          load_tokens(grad + first * N * N, N * N, tokens, g);
          sinkhorn.forward(l, m);
          sinkhorn.backward(l, m, g);
          store_tokens(g, N * N, tokens, out + first * N * N);
        });
      });
    });
  });
}

void check_inputs(const Tensor& logits, const SinkhornArgs& args) {
  if (logits.ndim() < 2 || logits.dim(-1) != logits.dim(-2) || logits.dim(-1) < 1 ||
      logits.dim(-1) > kMaxStreams)
    fail<ShapeError>(fmt::format("sinkhorn: logits must be [..., n, n] with n from 1 to {}, got {}",
                                 kMaxStreams, logits.describe()));
  if (args.iterations < 1 || args.iterations > 1000)
    fail<ConfigError>(
        fmt::format("sinkhorn: iterations must be from 1 to 1000, got {}", args.iterations));
}

}  // namespace

StreamConvention stream_convention_from(std::string_view name) {
  if (name == "paper") return StreamConvention::paper;
  if (name == "megatron") return StreamConvention::megatron;
  if (name == "deepseek-v4") return StreamConvention::deepseek_v4;
  fail<ConfigError>(fmt::format(
      "convention: must be \"paper\", \"megatron\" or \"deepseek-v4\", got \"{}\"", name));
}

std::string_view name_of(StreamConvention convention) {
  switch (convention) {
    case StreamConvention::paper:
      return "paper";
    case StreamConvention::megatron:
      return "megatron";
    case StreamConvention::deepseek_v4:
      return "deepseek-v4";
  }
  return "?";
}

KernelTable<SinkhornKernels>& sinkhorn_table() {
  static KernelTable<SinkhornKernels> table("sinkhorn", {forward_cpu, backward_cpu});
  return table;
}

Tensor sinkhorn(const Tensor& logits, const SinkhornArgs& args) {
  check_inputs(logits, args);
  const Tensor output = Tensor::empty_like(logits);
  sinkhorn_table().at(logits.device()).forward(logits.contiguous(), args, output);
  return output;
}

Tensor sinkhorn_backward(const Tensor& grad_output, const Tensor& logits,
                         const SinkhornArgs& args) {
  check_inputs(logits, args);
  check_shape(grad_output, logits.shape(), "sinkhorn", "grad_output");
  check_dtype(grad_output, logits.dtype(), "sinkhorn", "grad_output");
  check_device(grad_output, logits, "sinkhorn", "grad_output");
  const Tensor grad_logits = Tensor::empty_like(logits);
  sinkhorn_table()
      .at(logits.device())
      .backward(grad_output.contiguous(), logits.contiguous(), args, grad_logits);
  return grad_logits;
}

}  // namespace lectern
