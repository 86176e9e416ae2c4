#include "core/ops/adamw.h"
#include "core/ops/adamw_math.h"
#include "cuda/collective.h"
#include "cuda/launch.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

#include <cmath>
#include <vector>

namespace lectern::cuda {
namespace {

constexpr int kThreads = 256;
/// Elements of one block's share: all tensors are cut into such chunks, and one launch does them
/// all, however many tensors there are and however small.
constexpr std::int64_t kChunk = 1 << 14;

/// Part of a parameter, with its addresses: the kernel reads these from a table in device memory.
struct UpdateChunk {
  float *value, *exp_avg, *exp_avg_sq;
  const float* grad;
  std::int64_t count;
  AdamWFactors<float> factors;
  bool packed;  ///< all four are aligned: 16 bytes move at a time
};

struct ReadChunk {
  const float* values;
  std::int64_t count;
};

/// A table of plain structs in device memory.
template <typename Row>
class Table {
 public:
  Table(const std::vector<Row>& rows, Device device) : rows_(rows.size()) {
    const auto bytes = static_cast<std::int64_t>(rows.size() * sizeof(Row));
    const Tensor host = Tensor::empty({bytes}, DType::u8);
    std::memcpy(host.raw(), rows.data(), static_cast<std::size_t>(bytes));
    memory_ = host.to(device);
  }
  Span<const Row> span() const {
    return {reinterpret_cast<const Row*>(memory_.data<std::uint8_t>()),
            static_cast<std::int64_t>(rows_)};
  }

 private:
  std::size_t rows_;
  Tensor memory_;
};

template <int N>
__device__ void update_elements(const UpdateChunk& chunk, std::int64_t i) {
  const Span<float> values(chunk.value, chunk.count), exp_avg(chunk.exp_avg, chunk.count),
      exp_avg_sq(chunk.exp_avg_sq, chunk.count);
  const Span<const float> grads(chunk.grad, chunk.count);
  auto value = values.load<N>(i), m = exp_avg.load<N>(i), v = exp_avg_sq.load<N>(i);
  const auto grad = grads.load<N>(i);
  for (int k = 0; k < N; ++k) adamw_element(chunk.factors, value[k], grad[k], m[k], v[k]);
  values.store<N>(i, value);
  exp_avg.store<N>(i, m);
  exp_avg_sq.store<N>(i, v);
}

__global__ void adamw_kernel(Span<const UpdateChunk> chunks) {
  constexpr int N = kWidest<float>;
  const UpdateChunk chunk = chunks[blockIdx.x];
  const std::int64_t packs = chunk.packed ? chunk.count / N : 0;
  for (std::int64_t i = threadIdx.x; i < packs; i += blockDim.x) update_elements<N>(chunk, i * N);
  for (std::int64_t i = packs * N + threadIdx.x; i < chunk.count; i += blockDim.x)
    update_elements<1>(chunk, i);
}

__global__ void sum_of_squares_kernel(Span<const ReadChunk> chunks, Span<double> partial) {
  SharedMemory memory;
  const auto scratch = memory.take<double>(kThreads / kWarp);
  const ReadChunk chunk = chunks[blockIdx.x];
  const Span<const float> values(chunk.values, chunk.count);
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < chunk.count; i += blockDim.x) {
    const auto value = static_cast<double>(values[i]);
    sum += value * value;
  }
  sum = block_sum(scratch, sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void total_kernel(Span<const double> partial, Span<double> total, std::int64_t count) {
  SharedMemory memory;
  const auto scratch = memory.take<double>(kThreads / kWarp);
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += partial[i];
  sum = block_sum(scratch, sum);
  if (threadIdx.x == 0) total[0] = sum;
}

template <typename T>
__global__ void count_non_finite_kernel(Span<const T> x, Span<std::int32_t> found,
                                        std::int64_t count) {
  bool bad = false;
  for (std::int64_t i = grid_thread(); i < count; i += grid_threads()) {
    const float value = to_float(x[i]);
    bad = bad || !(value - value == 0.0f);  // 0 for finite values, else NaN
  }
  if (__any_sync(kAllLanes, bad) && threadIdx.x % kWarp == 0) found.atomic_add(0, 1);
}

AdamWFactors<float> factors(const AdamWParameter& parameter, const AdamWStep& step) {
  const auto updates = static_cast<double>(parameter.step);
  return {
      .gradient_scale = static_cast<float>(step.gradient_scale),
      .decay = static_cast<float>(1.0 - step.learning_rate * parameter.weight_decay),
      .rate1 = static_cast<float>(1.0 - step.beta1),
      .beta2 = static_cast<float>(step.beta2),
      .rate2 = static_cast<float>(1.0 - step.beta2),
      .root_bias2 = static_cast<float>(std::sqrt(1.0 - std::pow(step.beta2, updates))),
      .epsilon = static_cast<float>(step.epsilon),
      .step_size = static_cast<float>(step.learning_rate / (1.0 - std::pow(step.beta1, updates)))};
}

void update(std::span<const AdamWParameter> parameters, const AdamWStep& step) {
  std::vector<UpdateChunk> chunks;
  for (const AdamWParameter& p : parameters) {
    check_dtype(p.value, DType::f32, "adamw", "value");
    // One that is not aligned, such as a part of a flat buffer, slows itself down and no other.
    const bool packed = are_aligned({&p.value, &p.grad, &p.exp_avg, &p.exp_avg_sq});
    const AdamWFactors<float> f = factors(p, step);
    for (std::int64_t begin = 0; begin < p.value.numel(); begin += kChunk)
      chunks.push_back({p.value.data<float>() + begin, p.exp_avg.data<float>() + begin,
                        p.exp_avg_sq.data<float>() + begin, p.grad.data<float>() + begin,
                        std::min(kChunk, p.value.numel() - begin), f, packed});
  }
  if (chunks.empty()) return;
  const Table<UpdateChunk> table(chunks, parameters.front().value.device());
  launch("adamw", {static_cast<unsigned>(chunks.size()), kThreads}, adamw_kernel, table.span());
}

double sum_of_squares(std::span<const Tensor> tensors) {
  std::vector<ReadChunk> chunks;
  for (const Tensor& tensor : tensors) {
    check_dtype(tensor, DType::f32, "sum_of_squares", "tensor");
    for (std::int64_t begin = 0; begin < tensor.numel(); begin += kChunk)
      chunks.push_back({tensor.data<float>() + begin, std::min(kChunk, tensor.numel() - begin)});
  }
  if (chunks.empty()) return 0;
  const Device device = tensors.front().device();
  const auto count = static_cast<std::int64_t>(chunks.size());
  const Table<ReadChunk> table(chunks, device);
  const Tensor partial = Tensor::empty({count}, DType::f64, device);
  const Tensor total = Tensor::empty({}, DType::f64, device);
  const std::size_t shared = shared_bytes_of<double>(kThreads / kWarp);
  launch("sum_of_squares", {static_cast<unsigned>(count), kThreads, shared}, sum_of_squares_kernel,
         table.span(), span<double>(partial));
  launch("sum_of_squares", {1, kThreads, shared}, total_kernel, span<const double>(partial),
         span<double>(total), count);
  return total.item();
}

bool all_finite(const Tensor& tensor) {
  const Tensor found = Tensor::zeros({1}, DType::i32, tensor.device());
  if (tensor.numel() > 0)
    dispatch_storage(tensor.dtype(), "all_finite", [&]<typename T>() {
      launch("all_finite", {grid_for(tensor.numel(), kThreads), kThreads},
             count_non_finite_kernel<T>, span<const T>(tensor), span<std::int32_t>(found),
             tensor.numel());
    });
  return found.item() == 0;
}

}  // namespace

void register_adamw() { adamw_table().set(DeviceType::cuda, {update, sum_of_squares, all_finite}); }

}  // namespace lectern::cuda
