#include "core/ops/cross_entropy.h"
#include "cuda/launch.h"
#include "cuda/ops/cross_entropy_row.h"
#include "cuda/ops/register_ops.h"

namespace lectern::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T>
struct Forward {
  Span<const T> logits;
  Span<const std::int32_t> labels;
  Span<float> log_sum_exp;
  Span<double> loss;  // [rows]
  std::int64_t classes;
};

template <typename T>
__global__ void cross_entropy_forward_kernel(Forward<T> a) {
  SharedMemory memory;
  const auto scratch = memory.take<float>(kThreads / kWarp);
  const std::int64_t row = blockIdx.x, begin = row * a.classes;
  const std::int32_t label = a.labels[row];
  if (label == kIgnoredLabel) {
    if (threadIdx.x == 0) {
      a.log_sum_exp[row] = 0;
      a.loss[row] = 0;
    }
    return;
  }
  const float lse = log_sum_exp_of_row(a.logits, begin, a.classes, scratch);
  if (threadIdx.x == 0) {
    a.log_sum_exp[row] = lse;
    a.loss[row] = static_cast<double>(lse - to_float(a.logits[begin + label]));
  }
}

/// loss = sum of the rows' losses / count, in one block and in order.
__global__ void mean_loss_kernel(Span<const double> rows, Span<float> loss, std::int64_t count,
                                 double divisor) {
  SharedMemory memory;
  const auto scratch = memory.take<double>(kThreads / kWarp);
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += rows[i];
  sum = block_sum(scratch, sum);
  if (threadIdx.x == 0) loss[0] = static_cast<float>(sum / divisor);
}

template <typename T>
struct Backward {
  Span<const T> logits;
  Span<const std::int32_t> labels;
  Span<const float> log_sum_exp, grad_loss;
  Span<T> grad;
  std::int64_t classes;
  float factor;  // 1 / count
};

template <typename T>
__global__ void cross_entropy_backward_kernel(Backward<T> a) {
  const std::int64_t row = blockIdx.x, begin = row * a.classes;
  const std::int32_t label = a.labels[row];
  const float scale = a.grad_loss[0] * a.factor, shift = a.log_sum_exp[row];
  for (std::int64_t c = threadIdx.x; c < a.classes; c += blockDim.x) {
    float grad = 0;
    if (label != kIgnoredLabel)
      grad = scale * (expf(to_float(a.logits[begin + c]) - shift) - (c == label ? 1.0f : 0.0f));
    a.grad[begin + c] = from_float<T>(grad);
  }
}

CrossEntropyResult forward(const Tensor& logits, const Tensor& labels) {
  const std::int64_t rows = logits.dim(0), classes = logits.dim(1);
  const Device device = logits.device();
  const Tensor host_labels = labels.to(Device{});
  CrossEntropyResult result;
  result.count =
      static_cast<std::int64_t>(labelled_rows(host_labels, classes, "cross_entropy").size());
  result.log_sum_exp = Tensor::empty({rows}, DType::f32, device);
  result.loss = Tensor::empty({}, DType::f32, device);
  const Tensor losses = Tensor::empty({rows}, DType::f64, device);
  const Tensor on_gpu = on_device(host_labels, device);
  if (rows > 0)
    dispatch_storage(logits.dtype(), "cross_entropy", [&]<typename T>() {
      launch("cross_entropy",
             {static_cast<unsigned>(rows), kThreads, shared_bytes_of<float>(kThreads / kWarp)},
             cross_entropy_forward_kernel<T>,
             Forward<T>{span<const T>(logits), span<const std::int32_t>(on_gpu),
                        span<float>(result.log_sum_exp), span<double>(losses), classes});
    });
  launch("mean_loss", {1, kThreads, shared_bytes_of<double>(kThreads / kWarp)}, mean_loss_kernel,
         span<const double>(losses), span<float>(result.loss), rows,
         static_cast<double>(std::max<std::int64_t>(result.count, 1)));
  return result;
}

Tensor backward(const Tensor& grad_loss, const Tensor& logits, const Tensor& labels,
                const CrossEntropyResult& forward) {
  const Tensor out = Tensor::empty_like(logits);
  if (out.numel() == 0) return out;
  const Tensor on_gpu = on_device(labels, logits.device());
  dispatch_storage(logits.dtype(), "cross_entropy", [&]<typename T>() {
    launch("cross_entropy_backward", {static_cast<unsigned>(logits.dim(0)), kThreads},
           cross_entropy_backward_kernel<T>,
           Backward<T>{span<const T>(logits), span<const std::int32_t>(on_gpu),
                       span<const float>(forward.log_sum_exp), span<const float>(grad_loss),
                       span<T>(out), logits.dim(1),
                       1.0f / static_cast<float>(std::max<std::int64_t>(forward.count, 1))});
  });
  return out;
}

}  // namespace

void register_cross_entropy() { cross_entropy_table().set(DeviceType::cuda, {forward, backward}); }

}  // namespace lectern::cuda
