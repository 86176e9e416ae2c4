#include "core/ops/rms_norm.h"
#include "core/ops/rms_norm_math.h"
#include "cuda/collective.h"
#include "cuda/launch.h"
#include "cuda/ops/column_sum.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

namespace lectern::cuda {
namespace {

constexpr int kMostWarps = 16;

template <typename T>
struct Forward {
  Span<const T> x;
  Span<const float> weight;
  Span<T> out;
  Span<float> inverse;
  std::int64_t columns;
  float epsilon;
};

/// A block goes along one row; the second pass over the row comes from cache.
template <typename T, int N>
__global__ void rms_norm_forward_kernel(Forward<T> a) {
  SharedMemory memory;
  const auto scratch = memory.take<float>(kMostWarps);
  const std::int64_t row = blockIdx.x, begin = row * a.columns;
  float squares = 0;
  for (std::int64_t c = threadIdx.x * N; c < a.columns; c += blockDim.x * N) {
    const auto x = to_floats(a.x.template load<N>(begin + c));
    for (int k = 0; k < N; ++k) squares += x[k] * x[k];
  }
  squares = block_sum(scratch, squares);
  const float r = rms_norm_math::inverse_rms(squares, static_cast<float>(a.columns), a.epsilon);
  if (threadIdx.x == 0) a.inverse[row] = r;
  for (std::int64_t c = threadIdx.x * N; c < a.columns; c += blockDim.x * N) {
    const auto x = to_floats(a.x.template load<N>(begin + c));
    const auto weight = load_floats<N>(a.weight, c);
    Pack<T, N> y;
    for (int k = 0; k < N; ++k) y[k] = from_float<T>(rms_norm_math::output(x[k], r, weight[k]));
    a.out.template store<N>(begin + c, y);
  }
}

template <typename T>
struct Backward {
  Span<const T> grad, x;
  Span<const float> weight, inverse;
  Span<T> grad_x;              // may not exist
  Span<float> weight_partial;  // [blocks, columns]; may not exist
  std::int64_t rows, columns;
};

/// A block takes every gridDim.x-th row and adds up its share of grad_weight in shared memory,
/// where each thread has columns of its own.
template <typename T, int N>
__global__ void rms_norm_backward_kernel(Backward<T> a) {
  SharedMemory memory;
  const auto scratch = memory.take<float>(kMostWarps);
  const auto sums = memory.take<float>(a.weight_partial.exists() ? static_cast<int>(a.columns) : 0);
  const auto columns = static_cast<int>(a.columns);
  const int first = static_cast<int>(threadIdx.x) * N, step = static_cast<int>(blockDim.x) * N;
  if (a.weight_partial.exists())
    for (int c = first; c < columns; c += step)
      for (int k = 0; k < N; ++k) sums[c + k] = 0.0f;
  for (std::int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const std::int64_t begin = row * a.columns;
    const float r = a.inverse[row];
    float dot = 0;
    for (int c = first; c < columns; c += step) {
      const auto x = to_floats(a.x.template load<N>(begin + c));
      const auto grad = to_floats(a.grad.template load<N>(begin + c));
      const auto weight = load_floats<N>(a.weight, c);
      for (int k = 0; k < N; ++k) {
        dot += grad[k] * weight[k] * x[k];
        if (a.weight_partial.exists()) sums[c + k] += grad[k] * x[k] * r;
      }
    }
    if (!a.grad_x.exists()) continue;
    const float pull = rms_norm_math::pull(block_sum(scratch, dot), r, static_cast<float>(columns));
    for (int c = first; c < columns; c += step) {
      const auto x = to_floats(a.x.template load<N>(begin + c));
      const auto grad = to_floats(a.grad.template load<N>(begin + c));
      const auto weight = load_floats<N>(a.weight, c);
      Pack<T, N> out;
      for (int k = 0; k < N; ++k)
        out[k] = from_float<T>(rms_norm_math::grad_x(grad[k], x[k], weight[k], r, pull));
      a.grad_x.template store<N>(begin + c, out);
    }
  }
  if (a.weight_partial.exists())
    for (int c = first; c < columns; c += step)
      for (int k = 0; k < N; ++k) a.weight_partial[blockIdx.x * a.columns + c + k] = sums[c + k];
}

void forward(const Tensor& x, const Tensor& weight, double epsilon, const RmsNormOutput& result) {
  const std::int64_t columns = weight.numel(), rows = result.inverse_rms.numel();
  if (rows == 0) return;
  dispatch_storage(x.dtype(), "rms_norm", [&]<typename T>() {
    dispatch_width<T>(columns, {&x, &weight, &result.output}, [&]<int N>() {
      launch("rms_norm",
             {static_cast<unsigned>(rows), row_threads(columns / N),
              shared_bytes_of<float>(kMostWarps)},
             rms_norm_forward_kernel<T, N>,
             Forward<T>{span<const T>(x), span<const float>(weight), span<T>(result.output),
                        span<float>(result.inverse_rms), columns, static_cast<float>(epsilon)});
    });
  });
}

void backward(const Tensor& grad_output, const Tensor& x, const Tensor& weight,
              const Tensor& inverse_rms, const RmsNormGradients& gradients) {
  const std::int64_t columns = weight.numel(), rows = inverse_rms.numel();
  if (columns == 0) return;
  if (rows == 0) {
    if (gradients.weight.defined()) gradients.weight.fill(0);
    return;
  }
  const std::int64_t blocks = std::min<std::int64_t>(rows, multiprocessors() * 4);
  Tensor partial;
  if (gradients.weight.defined())
    partial = Tensor::empty({blocks, columns}, DType::f32, x.device());
  dispatch_storage(x.dtype(), "rms_norm", [&]<typename T>() {
    dispatch_width<T>(columns, {&grad_output, &x, &weight, &gradients.x}, [&]<int N>() {
      const std::size_t shared =
          shared_bytes_of<float>(kMostWarps) +
          shared_bytes_of<float>(partial.defined() ? static_cast<std::size_t>(columns) : 0);
      launch("rms_norm_backward", {static_cast<unsigned>(blocks), row_threads(columns / N), shared},
             rms_norm_backward_kernel<T, N>,
             Backward<T>{span<const T>(grad_output), span<const T>(x), span<const float>(weight),
                         span<const float>(inverse_rms), span<T>(gradients.x), span<float>(partial),
                         rows, columns});
    });
  });
  if (partial.defined()) column_sum(partial, blocks, columns, gradients.weight);
}

}  // namespace

void register_rms_norm() { rms_norm_table().set(DeviceType::cuda, {forward, backward}); }

}  // namespace lectern::cuda
