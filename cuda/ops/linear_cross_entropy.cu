#include "core/ops/cross_entropy.h"
#include "core/ops/linear_cross_entropy.h"
#include "cuda/launch.h"
#include "cuda/matrix_product.h"
#include "cuda/ops/cross_entropy_row.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

#include <algorithm>
#include <vector>

namespace lectern::cuda {
namespace {

constexpr int kThreads = 512;
/// Logits that are in memory at once: 2^27 keep the products large enough for a GPU (1,038 rows of
/// 129,280), at 512 MiB in f32.
constexpr std::int64_t kLogitElementsOnGpu = std::int64_t{1} << 27;

/// packed[i] = hidden[rows[i]], or the way back with kScatter.
template <typename T, int N, bool kScatter>
__global__ void move_rows_kernel(Span<const T> from, Span<const std::int32_t> rows, Span<T> to,
                                 std::int64_t first, std::int64_t count, std::int64_t width) {
  const std::int64_t packs = width / N;
  for (std::int64_t i = grid_thread(); i < count * packs; i += grid_threads()) {
    const std::int64_t row = i / packs, column = i % packs * N;
    const std::int64_t outside = rows[first + row] * width + column, inside = row * width + column;
    to.template store<N>(kScatter ? outside : inside,
                         from.template load<N>(kScatter ? inside : outside));
  }
}

template <typename T>
struct Finish {
  Span<const float> logits;  // [rows, classes]
  Span<T> gradient;          // [rows, classes], softmax - onehot; may not exist
  Span<const std::int32_t> rows, labels;
  Span<double> loss;
  std::int64_t first, classes;
};

template <typename T>
__global__ void finish_rows_kernel(Finish<T> a) {
  SharedMemory memory;
  const auto scratch = memory.take<float>(kThreads / kWarp);
  const std::int64_t row = blockIdx.x, begin = row * a.classes;
  const std::int32_t label = a.labels[a.rows[a.first + row]];
  // Before the barriers of the sum: the gradient may be written over the logits after them.
  const float logit = a.logits[begin + label];
  const float lse = log_sum_exp_of_row(a.logits, begin, a.classes, scratch);
  if (threadIdx.x == 0) a.loss[a.first + row] = static_cast<double>(lse - logit);
  if (!a.gradient.exists()) return;
  for (std::int64_t c = threadIdx.x; c < a.classes; c += blockDim.x) {
    const float p = expf(a.logits[begin + c] - lse);
    a.gradient[begin + c] = from_float<T>(c == label ? p - 1.0f : p);
  }
}

__global__ void sum_losses_kernel(Span<const double> rows, Span<float> loss, std::int64_t count) {
  SharedMemory memory;
  const auto scratch = memory.take<double>(kThreads / kWarp);
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += rows[i];
  sum = block_sum(scratch, sum);
  if (threadIdx.x == 0) loss[0] = static_cast<float>(sum);
}

template <typename T, int N>
__global__ void scale_kernel(Span<T> x, Span<const float> factor, std::int64_t count) {
  const float scale = factor[0];
  if (scale == 1.0f) return;
  const std::int64_t packs = count / N, steps = packs + count % N;
  for (std::int64_t i = grid_thread(); i < steps; i += grid_threads()) {
    if (i < packs) {
      auto pack = x.template load<N>(i * N);
      for (int k = 0; k < N; ++k) pack[k] = from_float<T>(to_float(pack[k]) * scale);
      x.template store<N>(i * N, pack);
    } else {
      const std::int64_t at = packs * N + i - packs;
      x[at] = from_float<T>(to_float(x[at]) * scale);
    }
  }
}

template <bool kScatter>
void move_rows(const Tensor& from, const Tensor& rows, const Tensor& to, std::int64_t first,
               std::int64_t count, std::int64_t width) {
  dispatch_storage(from.dtype(), "linear_cross_entropy", [&]<typename T>() {
    dispatch_width<T>(width, {&from, &to}, [&]<int N>() {
      launch("move_rows", {grid_for(count * width / N, 256), 256}, move_rows_kernel<T, N, kScatter>,
             span<const T>(from), span<const std::int32_t>(rows), span<T>(to), first, count, width);
    });
  });
}

/// What one call works with; the chunks share the buffers.
struct Buffers {
  Tensor rows, labels, loss;              // on the device
  Tensor packed, logits, gradient, grad;  // [R, C], [R, V] f32, [R, V] dtype of hidden, [R, C] f32
};

void chunk(const Tensor& weight, const Buffers& b, std::int64_t first, std::int64_t count,
           const LinearCrossEntropyTensors& out) {
  const std::int64_t classes = weight.dim(0), width = weight.dim(1);
  matrix_product({.transpose_b = true,
                  .m = count,
                  .n = classes,
                  .k = width,
                  .lda = width,
                  .ldb = width,
                  .ldc = classes},
                 b.packed, weight, b.logits);
  dispatch_storage(weight.dtype(), "linear_cross_entropy", [&]<typename T>() {
    launch("finish_rows",
           {static_cast<unsigned>(count), kThreads, shared_bytes_of<float>(kThreads / kWarp)},
           finish_rows_kernel<T>,
           Finish<T>{span<const float>(b.logits), span<T>(b.gradient),
                     span<const std::int32_t>(b.rows), span<const std::int32_t>(b.labels),
                     span<double>(b.loss), first, classes});
  });
  if (out.grad_hidden.defined()) {
    matrix_product(
        {.m = count, .n = width, .k = classes, .lda = classes, .ldb = width, .ldc = width},
        b.gradient, weight, b.grad);
    move_rows<true>(b.grad, b.rows, out.grad_hidden, first, count, width);
  }
  if (out.grad_weight.defined())
    matrix_product({.transpose_a = true,
                    .m = classes,
                    .n = width,
                    .k = count,
                    .lda = classes,
                    .ldb = width,
                    .ldc = width,
                    .accumulate = first > 0},
                   b.gradient, b.packed, out.grad_weight);
}

LinearCrossEntropyTensors forward(const Tensor& hidden, const Tensor& weight, const Tensor& labels,
                                  bool want_hidden, bool want_weight) {
  const std::int64_t width = hidden.dim(1), classes = weight.dim(0);
  const Device device = hidden.device();
  const DType dtype = hidden.dtype();
  const Tensor host_labels = labels.to(Device{});
  const std::vector<std::int32_t> labelled =
      labelled_rows(host_labels, classes, "linear_cross_entropy");
  LinearCrossEntropyTensors out;
  out.count = static_cast<std::int64_t>(labelled.size());
  out.loss_sum = Tensor::zeros({}, DType::f32, device);
  if (want_hidden) out.grad_hidden = Tensor::zeros(hidden.shape(), DType::f32, device);
  if (want_weight) out.grad_weight = Tensor::zeros(weight.shape(), DType::f32, device);
  if (out.count == 0) return out;
  const std::int64_t step = std::clamp<std::int64_t>(
      kLogitElementsOnGpu / std::max<std::int64_t>(classes, 1), 1, out.count);
  Buffers b;
  b.rows = Tensor::from(labelled, {out.count}).to(device);
  b.labels = on_device(host_labels, device);
  b.loss = Tensor::empty({out.count}, DType::f64, device);
  b.packed = Tensor::empty({step, width}, dtype, device);
  b.logits = Tensor::empty({step, classes}, DType::f32, device);
  if (want_hidden || want_weight)
    // In f32 the gradient may lie on the logits: each element is read before it is written.
    b.gradient = dtype == DType::f32 ? b.logits : Tensor::empty({step, classes}, dtype, device);
  if (want_hidden) b.grad = Tensor::empty({step, width}, DType::f32, device);
  for (std::int64_t first = 0; first < out.count; first += step) {
    const std::int64_t count = std::min(step, out.count - first);
    move_rows<false>(hidden, b.rows, b.packed, first, count, width);
    chunk(weight, b, first, count, out);
  }
  launch("sum_losses", {1, kThreads, shared_bytes_of<double>(kThreads / kWarp)}, sum_losses_kernel,
         span<const double>(b.loss), span<float>(out.loss_sum), out.count);
  return out;
}

void scale(const Tensor& tensor, const Tensor& factor) {
  if (tensor.numel() == 0) return;
  dispatch_storage(tensor.dtype(), "scale_in_place", [&]<typename T>() {
    dispatch_width<T>(0, {&tensor}, [&]<int N>() {
      launch("scale_in_place", {grid_for(tensor.numel(), 256 * N), 256}, scale_kernel<T, N>,
             span<T>(tensor), span<const float>(factor), tensor.numel());
    });
  });
}

}  // namespace

void register_linear_cross_entropy() {
  linear_cross_entropy_table().set(DeviceType::cuda, {forward, scale});
}

}  // namespace lectern::cuda
