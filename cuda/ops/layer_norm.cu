#include "core/ops/layer_norm.h"
#include "core/ops/layer_norm_math.h"
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
  Span<const float> weight, bias;
  Span<T> out;
  Span<float> mean, inverse;
  std::int64_t columns;
  float epsilon;
};

template <typename T, int N>
__global__ void layer_norm_forward_kernel(Forward<T> a) {
  SharedMemory memory;
  const auto scratch = memory.take<float>(kMostWarps);
  const std::int64_t row = blockIdx.x, begin = row * a.columns;
  const auto count = static_cast<float>(a.columns);
  float sum = 0;
  for (std::int64_t c = threadIdx.x * N; c < a.columns; c += blockDim.x * N) {
    const auto x = to_floats(a.x.template load<N>(begin + c));
    for (int k = 0; k < N; ++k) sum += x[k];
  }
  const float rough = block_sum(scratch, sum) / count;
  float rest = 0, squares = 0;
  for (std::int64_t c = threadIdx.x * N; c < a.columns; c += blockDim.x * N) {
    const auto x = to_floats(a.x.template load<N>(begin + c));
    for (int k = 0; k < N; ++k) {
      const float difference = x[k] - rough;
      rest += difference;
      squares += difference * difference;
    }
  }
  rest = block_sum(scratch, rest);
  squares = block_sum(scratch, squares);
  const auto s = layer_norm_math::statistics(rough, rest, squares, count, a.epsilon);
  if (threadIdx.x == 0) {
    a.mean[row] = s.mean;
    a.inverse[row] = s.inverse;
  }
  for (std::int64_t c = threadIdx.x * N; c < a.columns; c += blockDim.x * N) {
    const auto x = to_floats(a.x.template load<N>(begin + c));
    const auto weight = load_floats<N>(a.weight, c);
    const auto bias = load_floats<N>(a.bias, c);
    Pack<T, N> y;
    for (int k = 0; k < N; ++k)
      y[k] = from_float<T>(layer_norm_math::output(x[k], s.mean, s.inverse, weight[k], bias[k]));
    a.out.template store<N>(begin + c, y);
  }
}

template <typename T>
struct Backward {
  Span<const T> grad, x;
  Span<const float> weight, mean, inverse;
  Span<T> grad_x;       // may not exist
  Span<float> partial;  // [blocks, 2 columns]: of grad_weight, then of grad_bias; may not exist
  std::int64_t rows, columns;
};

/// As rms_norm's: each thread adds up columns of its own in shared memory.
template <typename T, int N>
__global__ void layer_norm_backward_kernel(Backward<T> a) {
  SharedMemory memory;
  const auto columns = static_cast<int>(a.columns);
  const auto scratch = memory.take<float>(kMostWarps);
  const auto sums = memory.take<float>(a.partial.exists() ? 2 * columns : 0);
  const int first = static_cast<int>(threadIdx.x) * N, step = static_cast<int>(blockDim.x) * N;
  if (a.partial.exists())
    for (int c = first; c < columns; c += step)
      for (int k = 0; k < N; ++k) sums[c + k] = sums[columns + c + k] = 0.0f;
  for (std::int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const std::int64_t begin = row * a.columns;
    const float mean = a.mean[row], inverse = a.inverse[row];
    float sum = 0, dot = 0;
    for (int c = first; c < columns; c += step) {
      const auto x = to_floats(a.x.template load<N>(begin + c));
      const auto grad = to_floats(a.grad.template load<N>(begin + c));
      const auto weight = load_floats<N>(a.weight, c);
      for (int k = 0; k < N; ++k) {
        const float h = grad[k] * weight[k], n = (x[k] - mean) * inverse;
        sum += h;
        dot += h * n;
        if (a.partial.exists()) {
          sums[c + k] += grad[k] * n;
          sums[columns + c + k] += grad[k];
        }
      }
    }
    if (!a.grad_x.exists()) continue;
    const float mean_h = block_sum(scratch, sum) / static_cast<float>(columns);
    const float mean_hn = block_sum(scratch, dot) / static_cast<float>(columns);
    for (int c = first; c < columns; c += step) {
      const auto x = to_floats(a.x.template load<N>(begin + c));
      const auto grad = to_floats(a.grad.template load<N>(begin + c));
      const auto weight = load_floats<N>(a.weight, c);
      Pack<T, N> out;
      for (int k = 0; k < N; ++k)
        out[k] = from_float<T>(
            layer_norm_math::grad_x(grad[k], x[k], weight[k], mean, inverse, mean_h, mean_hn));
      a.grad_x.template store<N>(begin + c, out);
    }
  }
  if (a.partial.exists())
    for (int c = first; c < columns; c += step)
      for (int k = 0; k < N; ++k) {
        a.partial[blockIdx.x * 2 * a.columns + c + k] = sums[c + k];
        a.partial[(blockIdx.x * 2 + 1) * a.columns + c + k] = sums[columns + c + k];
      }
}

void forward(const Tensor& x, const Tensor& weight, const Tensor& bias, double epsilon,
             const LayerNormOutput& result) {
  const std::int64_t columns = weight.numel(), rows = result.mean.numel();
  if (rows == 0) return;
  dispatch_storage(x.dtype(), "layer_norm", [&]<typename T>() {
    dispatch_width<T>(columns, {&x, &weight, &bias, &result.output}, [&]<int N>() {
      launch(
          "layer_norm",
          {static_cast<unsigned>(rows), row_threads(columns / N),
           shared_bytes_of<float>(kMostWarps)},
          layer_norm_forward_kernel<T, N>,
          Forward<T>{span<const T>(x), span<const float>(weight), span<const float>(bias),
                     span<T>(result.output), span<float>(result.mean),
                     span<float>(result.inverse_deviation), columns, static_cast<float>(epsilon)});
    });
  });
}

void backward(const Tensor& grad_output, const LayerNormSaved& saved,
              const LayerNormGradients& gradients) {
  const std::int64_t columns = saved.weight.numel(), rows = saved.mean.numel();
  if (columns == 0) return;
  if (rows == 0) {
    if (!gradients.weight.defined()) return;
    gradients.weight.fill(0);
    gradients.bias.fill(0);
    return;
  }
  const std::int64_t blocks = std::min<std::int64_t>(rows, multiprocessors() * 4);
  Tensor partial;
  if (gradients.weight.defined())
    partial = Tensor::empty({blocks, 2 * columns}, DType::f32, saved.x.device());
  dispatch_storage(saved.x.dtype(), "layer_norm", [&]<typename T>() {
    dispatch_width<T>(columns, {&grad_output, &saved.x, &saved.weight, &gradients.x}, [&]<int N>() {
      const std::size_t shared =
          shared_bytes_of<float>(kMostWarps) +
          shared_bytes_of<float>(partial.defined() ? 2 * static_cast<std::size_t>(columns) : 0);
      launch("layer_norm_backward",
             {static_cast<unsigned>(blocks), row_threads(columns / N), shared},
             layer_norm_backward_kernel<T, N>,
             Backward<T>{span<const T>(grad_output), span<const T>(saved.x),
                         span<const float>(saved.weight), span<const float>(saved.mean),
                         span<const float>(saved.inverse_deviation), span<T>(gradients.x),
                         span<float>(partial), rows, columns});
    });
  });
  if (!partial.defined()) return;
  const Tensor both = Tensor::empty({2, columns}, gradients.weight.dtype(), saved.x.device());
  column_sum(partial, blocks, 2 * columns, both);
  gradients.weight.copy_from(both.slice(0, 0, 1).view({columns}));
  gradients.bias.copy_from(both.slice(0, 1, 2).view({columns}));
}

}  // namespace

void register_layer_norm() { layer_norm_table().set(DeviceType::cuda, {forward, backward}); }

}  // namespace lectern::cuda
