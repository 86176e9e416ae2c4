#include "core/ops/adamw.h"

#include "core/ops/adamw_math.h"
#include "core/parallel.h"

#include <algorithm>
#include <vector>

namespace lectern {
namespace {

/// Elements a task handles: 256 KiB of f32 a tensor, and never a function of the thread count.
constexpr std::int64_t kChunk = 1 << 16;

struct Chunk {
  std::size_t tensor;
  std::int64_t begin, end;
};

template <typename Tensors, typename Size>
std::vector<Chunk> make_chunks(const Tensors& tensors, Size&& size) {
  std::vector<Chunk> chunks;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::int64_t n = size(tensors[i]);
    for (std::int64_t begin = 0; begin < n; begin += kChunk)
      chunks.push_back({i, begin, std::min(begin + kChunk, n)});
  }
  return chunks;
}

template <typename T>
AdamWFactors<T> factors(const AdamWParameter& parameter, const AdamWStep& step) {
  const auto updates = static_cast<double>(parameter.step);
  return {.gradient_scale = static_cast<T>(step.gradient_scale),
          .decay = static_cast<T>(1.0 - step.learning_rate * parameter.weight_decay),
          .rate1 = static_cast<T>(1.0 - step.beta1),
          .beta2 = static_cast<T>(step.beta2),
          .rate2 = static_cast<T>(1.0 - step.beta2),
          .root_bias2 = static_cast<T>(std::sqrt(1.0 - std::pow(step.beta2, updates))),
          .epsilon = static_cast<T>(step.epsilon),
          .step_size = static_cast<T>(step.learning_rate / (1.0 - std::pow(step.beta1, updates)))};
}

template <typename T>
void update_chunk(const AdamWParameter& parameter, const AdamWStep& step, const Chunk& chunk) {
  const AdamWFactors<T> f = factors<T>(parameter, step);
  T* __restrict value = parameter.value.data<T>();
  const T* __restrict grad = parameter.grad.data<T>();
  T* __restrict exp_avg = parameter.exp_avg.data<T>();
  T* __restrict exp_avg_sq = parameter.exp_avg_sq.data<T>();
#pragma omp simd
  for (std::int64_t i = chunk.begin; i < chunk.end; ++i)
    adamw_element(f, value[i], grad[i], exp_avg[i], exp_avg_sq[i]);
}

void update_cpu(std::span<const AdamWParameter> parameters, const AdamWStep& step) {
  const std::vector<Chunk> chunks =
      make_chunks(parameters, [](const AdamWParameter& p) { return p.value.numel(); });
  parallel_tasks(static_cast<std::int64_t>(chunks.size()), [&](std::int64_t i) {
    const Chunk& chunk = chunks[static_cast<std::size_t>(i)];
    const AdamWParameter& parameter = parameters[chunk.tensor];
    if (parameter.value.dtype() == DType::f32)
      update_chunk<float>(parameter, step, chunk);
    else
      update_chunk<double>(parameter, step, chunk);
  });
}

template <typename T>
double chunk_sum_of_squares(const T* x, std::int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) {
    const auto value = static_cast<double>(x[i]);
    sum += value * value;
  }
  return sum;
}

double sum_of_squares_cpu(std::span<const Tensor> tensors) {
  const std::vector<Chunk> chunks =
      make_chunks(tensors, [](const Tensor& tensor) { return tensor.numel(); });
  std::vector<double> sums(chunks.size());
  parallel_tasks(static_cast<std::int64_t>(chunks.size()), [&](std::int64_t i) {
    const Chunk& chunk = chunks[static_cast<std::size_t>(i)];
    const Tensor& tensor = tensors[chunk.tensor];
    const std::int64_t n = chunk.end - chunk.begin;
    sums[static_cast<std::size_t>(i)] =
        tensor.dtype() == DType::f32 ? chunk_sum_of_squares(tensor.data<float>() + chunk.begin, n)
                                     : chunk_sum_of_squares(tensor.data<double>() + chunk.begin, n);
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

bool all_finite_cpu(const Tensor& tensor) {
  return dispatch_floating(tensor.dtype(), "all_finite", [&]<typename T>() {
    const T* x = tensor.data<T>();
    T nothing = 0;  // x - x is 0 for finite x, else NaN
#pragma omp simd reduction(+ : nothing)
    for (std::int64_t i = 0; i < tensor.numel(); ++i) nothing += x[i] - x[i];
    return nothing == T{0};
  });
}

void check_parameter(const AdamWParameter& p) {
  constexpr std::string_view kName = "adamw";
  if (p.value.dtype() != DType::f32 && p.value.dtype() != DType::f64)
    fail<DTypeError>(fmt::format("adamw: value must be f32 or f64, got {}", p.value.describe()));
  check_contiguous(p.value, kName, "value");
  const std::pair<const Tensor&, std::string_view> others[] = {
      {p.grad, "grad"}, {p.exp_avg, "exp_avg"}, {p.exp_avg_sq, "exp_avg_sq"}};
  for (const auto& [tensor, name] : others) {
    check_shape(tensor, p.value.shape(), kName, name);
    check_dtype(tensor, p.value.dtype(), kName, name);
    check_device(tensor, p.value, kName, name);
    check_contiguous(tensor, kName, name);
  }
}

}  // namespace

KernelTable<AdamWKernels>& adamw_table() {
  static KernelTable<AdamWKernels> instance("adamw",
                                            {update_cpu, sum_of_squares_cpu, all_finite_cpu});
  return instance;
}

void adamw_update(std::span<const AdamWParameter> parameters, const AdamWStep& step) {
  if (parameters.empty()) return;
  for (const AdamWParameter& parameter : parameters) check_parameter(parameter);
  adamw_table().at(parameters.front().value.device()).update(parameters, step);
  for (const AdamWParameter& parameter : parameters) parameter.value.mark_modified();
}

double sum_of_squares(std::span<const Tensor> tensors) {
  for (const Tensor& tensor : tensors) {
    check_contiguous(tensor, "sum_of_squares", "tensor");
    if (tensor.dtype() != DType::f32 && tensor.dtype() != DType::f64)
      fail<DTypeError>(
          fmt::format("sum_of_squares: tensor must be f32 or f64, got {}", tensor.describe()));
  }
  if (tensors.empty()) return 0;
  return adamw_table().at(tensors.front().device()).sum_of_squares(tensors);
}

bool all_finite(const Tensor& tensor) {
  check_contiguous(tensor, "all_finite", "tensor");
  return adamw_table().at(tensor.device()).all_finite(tensor);
}

}  // namespace lectern
