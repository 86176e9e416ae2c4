#include "core/ops/linear_cross_entropy.h"

#include "core/cpu/gemm_bf16.h"
#include "core/ops/convert.h"
#include "core/ops/cross_entropy.h"
#include "core/ops/cross_entropy_math.h"
#include "core/parallel.h"
#include "core/profile.h"

#include <algorithm>
#include <span>
#include <type_traits>
#include <vector>

namespace lectern {
namespace {

using Rows = std::span<const std::int32_t>;

/// packed[i] = hidden[rows[i]]
template <typename T>
void gather(Rows rows, std::int64_t width, const T* hidden, T* packed) {
  for (std::size_t i = 0; i < rows.size(); ++i)
    std::copy_n(hidden + rows[i] * width, width, packed + static_cast<std::int64_t>(i) * width);
}

template <typename T>
void scatter(Rows rows, std::int64_t width, const T* packed, T* out) {
  for (std::size_t i = 0; i < rows.size(); ++i)
    std::copy_n(packed + static_cast<std::int64_t>(i) * width, width, out + rows[i] * width);
}

/// Loss of each row; with `gradient`, logits <- softmax(logits) - onehot(label).
template <typename T>
void finish_rows(Rows rows, std::int64_t classes, const std::int32_t* labels, bool gradient,
                 T* logits, double* loss) {
  parallel_for(
      static_cast<std::int64_t>(rows.size()), 1, [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          T* row = logits + i * classes;
          const std::int32_t label = labels[rows[static_cast<std::size_t>(i)]];
          const T logit = row[label];
          const T lse = gradient ? softmax_in_place(row, classes) : log_sum_exp(row, classes);
          loss[i] = static_cast<double>(lse - logit);
          if (gradient) row[label] -= T{1};
        }
      });
}

// Over 60 lines: the loss and both gradients of a chunk share its logits, which nobody else sees.
template <typename T>
LinearCrossEntropyTensors forward_typed(const Tensor& hidden, const Tensor& weight,
                                        const Tensor& labels, bool want_hidden, bool want_weight) {
  using Sum = SumOf<T>;
  const std::int64_t width = hidden.dim(1), classes = weight.dim(0);
  const std::vector<std::int32_t> labelled = labelled_rows(labels, classes, "linear_cross_entropy");
  LinearCrossEntropyTensors out;
  out.count = static_cast<std::int64_t>(labelled.size());
  const ProfileProduct timed(
      "linear_cross_entropy",
      2.0 * static_cast<double>(out.count) * static_cast<double>(width * classes) *
          (1.0 + static_cast<double>(want_hidden) + static_cast<double>(want_weight)));
  if (want_hidden) out.grad_hidden = Tensor::zeros(hidden.shape(), kDTypeOf<Sum>);
  if (want_weight)
    out.grad_weight = out.count == 0 ? Tensor::zeros(weight.shape(), kDTypeOf<Sum>)
                                     : Tensor::empty(weight.shape(), kDTypeOf<Sum>);
  const std::int64_t step = std::min(
      out.count, std::clamp<std::int64_t>(kLogitElements / std::max<std::int64_t>(classes, 1), 1,
                                          kMaxLogitRows));
  const Tensor logits = Tensor::empty({step, classes}, kDTypeOf<Sum>);
  const Tensor packed = Tensor::empty({step, width}, kDTypeOf<T>);
  const Tensor packed_grad = Tensor::empty({want_hidden ? step : 0, width}, kDTypeOf<Sum>);
  const T* w = weight.data<T>();
  T* p = packed.data<T>();
  std::vector<double> loss(labelled.size());
  for (std::int64_t begin = 0; begin < out.count; begin += step) {
    const std::int64_t rows = std::min(step, out.count - begin);
    const Rows chunk =
        Rows(labelled).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(rows));
    gather(chunk, width, hidden.data<T>(), p);
    gemm({.transpose_b = true,
          .m = rows,
          .n = classes,
          .k = width,
          .lda = width,
          .ldb = width,
          .ldc = classes},
         p, w, logits.data<Sum>());
    finish_rows(chunk, classes, labels.data<std::int32_t>(), want_hidden || want_weight,
                logits.data<Sum>(), loss.data() + begin);
    if (!want_hidden && !want_weight) continue;
    const Tensor gradient =
        std::is_same_v<T, Sum> ? logits : convert(logits.slice(0, 0, rows), kDTypeOf<T>);
    const T* z = gradient.data<T>();
    if (want_hidden) {
      gemm({.m = rows, .n = width, .k = classes, .lda = classes, .ldb = width, .ldc = width}, z, w,
           packed_grad.data<Sum>());
      scatter(chunk, width, packed_grad.data<Sum>(), out.grad_hidden.data<Sum>());
    }
    if (want_weight)
      gemm({.transpose_a = true,
            .m = classes,
            .n = width,
            .k = rows,
            .lda = classes,
            .ldb = width,
            .ldc = width,
            .accumulate = begin > 0},
           z, p, out.grad_weight.data<Sum>());
  }
  double sum = 0;
  for (const double value : loss) sum += value;
  out.loss_sum = Tensor::full({}, sum, kDTypeOf<Sum>);
  return out;
}

LinearCrossEntropyTensors forward_cpu(const Tensor& hidden, const Tensor& weight,
                                      const Tensor& labels, bool want_hidden, bool want_weight) {
  return dispatch_operand(hidden.dtype(), "linear_cross_entropy", [&]<typename T>() {
    return forward_typed<T>(hidden, weight, labels, want_hidden, want_weight);
  });
}

void scale_cpu(const Tensor& tensor, const Tensor& factor) {
  const double value = factor.item();
  if (value == 1.0) return;
  dispatch_floating(tensor.dtype(), "scale_in_place", [&]<typename T>() {
    T* x = tensor.data<T>();
    const T scale = static_cast<T>(value);
    parallel_for(tensor.numel(), 1 << 15, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) x[i] *= scale;
    });
  });
}

}  // namespace

KernelTable<LinearCrossEntropyKernels>& linear_cross_entropy_table() {
  static KernelTable<LinearCrossEntropyKernels> instance("linear_cross_entropy",
                                                         {forward_cpu, scale_cpu});
  return instance;
}

LinearCrossEntropyTensors linear_cross_entropy_forward(const Tensor& hidden, const Tensor& weight,
                                                       const Tensor& labels, bool want_hidden,
                                                       bool want_weight) {
  constexpr std::string_view kName = "linear_cross_entropy";
  check_ndim(hidden, 2, kName, "hidden");
  check_ndim(weight, 2, kName, "weight");
  check_shape(weight, {weight.dim(0), hidden.dim(1)}, kName, "weight");
  check_shape(labels, {hidden.dim(0)}, kName, "labels");
  check_dtype(weight, hidden.dtype(), kName, "weight");
  check_device(weight, hidden, kName, "weight");
  check_dtype(labels, DType::i32, kName, "labels");
  check_contiguous(hidden, kName, "hidden");
  check_contiguous(weight, kName, "weight");
  check_contiguous(labels, kName, "labels");
  return linear_cross_entropy_table()
      .at(hidden.device())
      .forward(hidden, weight, labels, want_hidden, want_weight);
}

Tensor scale_in_place(const Tensor& tensor, const Tensor& factor) {
  check_shape(factor, {}, "scale_in_place", "factor");
  check_contiguous(tensor, "scale_in_place", "tensor");
  linear_cross_entropy_table().at(tensor.device()).scale(tensor, factor);
  return tensor;
}

}  // namespace lectern
