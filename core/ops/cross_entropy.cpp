#include "core/ops/cross_entropy.h"

#include "core/ops/cross_entropy_math.h"
#include "core/parallel.h"

namespace lectern {
namespace {

std::int64_t row_grain(std::int64_t classes) {
  return std::max<std::int64_t>(1, (1 << 14) / std::max<std::int64_t>(classes, 1));
}

template <typename T>
CrossEntropyResult forward_typed(const Tensor& logits, const Tensor& labels) {
  const std::int64_t rows = logits.dim(0), classes = logits.dim(1);
  CrossEntropyResult result;
  result.log_sum_exp = Tensor::zeros({rows}, logits.dtype());
  const std::vector<std::int32_t> labelled = labelled_rows(labels, classes, "cross_entropy");
  result.count = static_cast<std::int64_t>(labelled.size());
  const T* x = logits.data<T>();
  const std::int32_t* label = labels.data<std::int32_t>();
  T* lse = result.log_sum_exp.data<T>();
  parallel_for(result.count, row_grain(classes), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t n = labelled[static_cast<std::size_t>(i)];
      lse[n] = log_sum_exp(x + n * classes, classes);
    }
  });
  double sum = 0;
  for (const std::int64_t n : labelled)
    sum += static_cast<double>(lse[n] - x[n * classes + label[n]]);
  result.loss = Tensor::full({}, result.count == 0 ? 0.0 : sum / static_cast<double>(result.count),
                             logits.dtype());
  return result;
}

template <typename T>
Tensor backward_typed(const Tensor& grad_loss, const Tensor& logits, const Tensor& labels,
                      const CrossEntropyResult& forward) {
  const std::int64_t rows = logits.dim(0), classes = logits.dim(1);
  Tensor out = Tensor::empty_like(logits);
  const T *x = logits.data<T>(), *lse = forward.log_sum_exp.data<T>();
  const std::int32_t* label = labels.data<std::int32_t>();
  T* grad = out.data<T>();
  const T scale = static_cast<T>(grad_loss.item() /
                                 static_cast<double>(std::max<std::int64_t>(forward.count, 1)));
  parallel_for(rows, row_grain(classes), [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const T* row = x + n * classes;
      T* g = grad + n * classes;
      if (label[n] == kIgnoredLabel) {
        std::fill_n(g, classes, T{0});
        continue;
      }
      const T shift = lse[n];
#pragma omp simd
      for (std::int64_t i = 0; i < classes; ++i) g[i] = scale * fast_exp(row[i] - shift);
      g[label[n]] -= scale;
    }
  });
  return out;
}

CrossEntropyResult forward_cpu(const Tensor& logits, const Tensor& labels) {
  return dispatch_floating(logits.dtype(), "cross_entropy",
                           [&]<typename T>() { return forward_typed<T>(logits, labels); });
}

Tensor backward_cpu(const Tensor& grad_loss, const Tensor& logits, const Tensor& labels,
                    const CrossEntropyResult& forward) {
  return dispatch_floating(logits.dtype(), "cross_entropy", [&]<typename T>() {
    return backward_typed<T>(grad_loss, logits, labels, forward);
  });
}

}  // namespace

KernelTable<CrossEntropyKernels>& cross_entropy_table() {
  static KernelTable<CrossEntropyKernels> instance("cross_entropy", {forward_cpu, backward_cpu});
  return instance;
}

std::vector<std::int32_t> labelled_rows(const Tensor& labels, std::int64_t classes,
                                        std::string_view operation) {
  if (labels.device().type != DeviceType::cpu)
    fail<DeviceError>(
        fmt::format("{}: labels must be on the CPU, got {}", operation, labels.describe()));
  const std::int32_t* label = labels.data<std::int32_t>();
  std::vector<std::int32_t> rows;
  for (std::int64_t n = 0; n < labels.numel(); ++n) {
    if (label[n] == kIgnoredLabel) continue;
    if (label[n] < 0 || label[n] >= classes)
      fail<ShapeError>(fmt::format("{}: labels must be 0..{} or {}, got {} at position {}",
                                   operation, classes - 1, kIgnoredLabel, label[n], n));
    rows.push_back(static_cast<std::int32_t>(n));
  }
  return rows;
}

CrossEntropyResult cross_entropy_forward(const Tensor& logits, const Tensor& labels) {
  check_ndim(logits, 2, "cross_entropy", "logits");
  check_shape(labels, {logits.dim(0)}, "cross_entropy", "labels");
  check_dtype(labels, DType::i32, "cross_entropy", "labels");
  check_contiguous(logits, "cross_entropy", "logits");
  check_contiguous(labels, "cross_entropy", "labels");
  return cross_entropy_table().at(logits.device()).forward(logits, labels);
}

Tensor cross_entropy_backward(const Tensor& grad_loss, const Tensor& logits, const Tensor& labels,
                              const CrossEntropyResult& forward) {
  return cross_entropy_table().at(logits.device()).backward(grad_loss, logits, labels, forward);
}

}  // namespace lectern
