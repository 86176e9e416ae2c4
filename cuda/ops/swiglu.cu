#include "core/ops/swiglu.h"
#include "core/ops/swiglu_math.h"
#include "cuda/launch.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

namespace lectern::cuda {
namespace {

constexpr unsigned kThreads = 256;

/// gate_up [rows, 2 width] -> out [rows, width]; `width` a multiple of N.
template <typename T, int N>
__global__ void swiglu_forward_kernel(Span<const T> gate_up, Span<T> out, std::int64_t rows,
                                      std::int64_t width) {
  const std::int64_t packs = width / N;
  for (std::int64_t i = grid_thread(); i < rows * packs; i += grid_threads()) {
    const std::int64_t row = i / packs, column = i % packs * N;
    const auto gate = gate_up.template load<N>(row * 2 * width + column);
    const auto up = gate_up.template load<N>(row * 2 * width + width + column);
    Pack<T, N> y;
    for (int k = 0; k < N; ++k)
      y[k] = from_float<T>(swiglu_math::output(to_float(gate[k]), to_float(up[k])));
    out.template store<N>(row * width + column, y);
  }
}

template <typename T, int N>
__global__ void swiglu_backward_kernel(Span<const T> grad_out, Span<const T> gate_up,
                                       Span<T> grad_gate_up, std::int64_t rows,
                                       std::int64_t width) {
  const std::int64_t packs = width / N;
  for (std::int64_t i = grid_thread(); i < rows * packs; i += grid_threads()) {
    const std::int64_t row = i / packs, column = i % packs * N, begin = row * 2 * width + column;
    const auto grad = grad_out.template load<N>(row * width + column);
    const auto gate = gate_up.template load<N>(begin);
    const auto up = gate_up.template load<N>(begin + width);
    Pack<T, N> grad_gate, grad_up;
    for (int k = 0; k < N; ++k) {
      const auto g = swiglu_math::gradients(to_float(grad[k]), to_float(gate[k]), to_float(up[k]));
      grad_gate[k] = from_float<T>(g.gate);
      grad_up[k] = from_float<T>(g.up);
    }
    grad_gate_up.template store<N>(begin, grad_gate);
    grad_gate_up.template store<N>(begin + width, grad_up);
  }
}

void forward(const Tensor& gate_up, const Tensor& out) {
  if (out.numel() == 0) return;
  const std::int64_t width = out.dim(-1), rows = out.numel() / width;
  dispatch_storage(out.dtype(), "swiglu", [&]<typename T>() {
    dispatch_width<T>(width, {&gate_up, &out}, [&]<int N>() {
      launch("swiglu", {grid_for(out.numel(), kThreads * N), kThreads}, swiglu_forward_kernel<T, N>,
             span<const T>(gate_up), span<T>(out), rows, width);
    });
  });
}

void backward(const Tensor& grad_output, const Tensor& gate_up, const Tensor& grad_gate_up) {
  if (grad_output.numel() == 0) return;
  const std::int64_t width = grad_output.dim(-1), rows = grad_output.numel() / width;
  dispatch_storage(gate_up.dtype(), "swiglu", [&]<typename T>() {
    dispatch_width<T>(width, {&grad_output, &gate_up, &grad_gate_up}, [&]<int N>() {
      launch("swiglu_backward", {grid_for(grad_output.numel(), kThreads * N), kThreads},
             swiglu_backward_kernel<T, N>, span<const T>(grad_output), span<const T>(gate_up),
             span<T>(grad_gate_up), rows, width);
    });
  });
}

}  // namespace

void register_swiglu() { swiglu_table().set(DeviceType::cuda, {forward, backward}); }

}  // namespace lectern::cuda
