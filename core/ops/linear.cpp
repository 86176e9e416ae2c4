#include "core/ops/linear.h"

#include "core/cpu/gemm_bf16.h"
#include "core/cpu/mixed_gemm.h"
#include "core/ops/linear_packed.h"
#include "core/parallel.h"
#include "core/profile.h"

#include <algorithm>

namespace lectern {
namespace {

/// Rows of x up to which gemm's own loop over the rows of W, bound by memory, is the fastest.
constexpr std::int64_t kFewRows = 4;

void forward_cpu(const Tensor& x, const Tensor& weight, const Tensor& bias, WeightUse use,
                 const Tensor& y) {
  const std::int64_t m = x.dim(0), k = x.dim(1), n = weight.dim(0);
  if (x.dtype() == DType::f32 && weight.dtype() == DType::bf16)
    return mixed_gemm({.m = m, .n = n, .k = k, .ldx = k, .ldw = weight.stride(0), .ldy = n},
                      x.data<float>(), weight.data<BFloat16>(),
                      bias.defined() ? bias.data<float>() : nullptr, y.data<float>());
  if (use == WeightUse::constant && x.dtype() == DType::f32 && m > kFewRows && !omp_in_parallel() &&
      linear_packed(x, weight, bias, y))
    return;
  dispatch_operand(x.dtype(), "linear", [&]<typename T>() {
    using Sum = SumOf<T>;
    const GemmArgs args{
        .transpose_b = true, .m = m, .n = n, .k = k, .lda = k, .ldb = weight.stride(0), .ldc = n};
    if (bias.defined()) {
      gemm_bias(args, x.data<T>(), weight.data<T>(), bias.data<Sum>(), y.data<Sum>());
    } else {
      gemm(args, x.data<T>(), weight.data<T>(), y.data<Sum>());
    }
  });
}

void grad_x_cpu(const Tensor& grad_y, const Tensor& weight, const Tensor& out) {
  const std::int64_t m = grad_y.dim(0), n = grad_y.dim(1), k = weight.dim(1);
  dispatch_operand(grad_y.dtype(), "linear", [&]<typename T>() {
    gemm({.m = m, .n = k, .k = n, .lda = n, .ldb = weight.stride(0), .ldc = k}, grad_y.data<T>(),
         weight.data<T>(), out.data<SumOf<T>>());
  });
}

void grad_weight_cpu(const Tensor& grad_y, const Tensor& x, bool accumulate, const Tensor& out) {
  const std::int64_t m = grad_y.dim(0), n = grad_y.dim(1), k = x.dim(1);
  dispatch_operand(grad_y.dtype(), "linear", [&]<typename T>() {
    gemm({.transpose_a = true,
          .m = n,
          .n = k,
          .k = m,
          .lda = n,
          .ldb = k,
          .ldc = k,
          .accumulate = accumulate},
         grad_y.data<T>(), x.data<T>(), out.data<SumOf<T>>());
  });
}

/// Threads share out the columns; each adds up its columns in runs of rows, which keeps the
/// rounding error of thousands of rows small.
void grad_bias_cpu(const Tensor& grad_y, const Tensor& out) {
  constexpr std::int64_t kColumns = 64, kRun = 64;
  const std::int64_t m = grad_y.dim(0), n = grad_y.dim(1);
  dispatch_floating(grad_y.dtype(), "linear", [&]<typename T>() {
    const T* from = grad_y.data<T>();
    T* to = out.data<T>();
    const std::int64_t blocks = (n + kColumns - 1) / kColumns;
    const std::int64_t grain = std::max<std::int64_t>(1, (1 << 15) / (kColumns * (m + 1)));
    parallel_for(blocks, grain, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t j = begin * kColumns; j < std::min(n, end * kColumns); j += kColumns) {
        const std::int64_t count = std::min(kColumns, n - j);
        T total[kColumns] = {};
        for (std::int64_t row = 0; row < m; row += kRun) {
          T run[kColumns] = {};
          for (std::int64_t i = row; i < std::min(m, row + kRun); ++i)
            for (std::int64_t c = 0; c < count; ++c) run[c] += from[i * n + j + c];
          for (std::int64_t c = 0; c < count; ++c) total[c] += run[c];
        }
        std::copy_n(total, count, to + j);
      }
    });
  });
}

/// [..., C] as a contiguous [rows, C].
Tensor as_matrix(const Tensor& x) {
  const std::int64_t columns = x.dim(-1);
  std::int64_t rows = 1;
  for (int i = 0; i + 1 < x.ndim(); ++i) rows *= x.dim(i);
  return x.contiguous().view({rows, columns});
}

Shape with_last(Shape shape, std::int64_t size) {
  shape[shape.ndim() - 1] = size;
  return shape;
}

void check_has_rows(const Tensor& x, std::string_view name) {
  if (!x.defined() || x.ndim() < 1)
    fail<ShapeError>(
        fmt::format("linear: {} must have 1 dimension or more, got {}", name, x.describe()));
}

/// Operations of a product of x [..., k] with n columns.
double work_of(const Tensor& x, std::int64_t n) {
  return 2.0 * static_cast<double>(x.numel()) * static_cast<double>(n);
}

/// The weight itself, or a copy when its rows are not contiguous.
Tensor checked_weight(const Tensor& weight) {
  check_ndim(weight, 2, "linear", "weight");
  const bool usable = weight.dim(1) == 0 || weight.dim(0) == 0 ||
                      (weight.stride(1) == 1 && weight.stride(0) >= weight.dim(1));
  return usable ? weight : weight.contiguous();
}

void grad_weight_into(const Tensor& grad_y, const Tensor& x, bool accumulate, const Tensor& out) {
  check_shape(grad_y, with_last(x.shape(), grad_y.dim(-1)), "linear", "grad_y");
  check_dtype(grad_y, x.dtype(), "linear", "grad_y");
  check_device(grad_y, x, "linear", "grad_y");
  check_shape(out, {grad_y.dim(-1), x.dim(-1)}, "linear", "grad_weight");
  check_dtype(out, sum_dtype(x.dtype()), "linear", "grad_weight");
  check_contiguous(out, "linear", "grad_weight");
  if (out.numel() == 0 || x.numel() == 0) return;
  const ProfileProduct timed("linear grad_weight", work_of(grad_y, x.dim(-1)));
  linear_table().at(x.device()).grad_weight(as_matrix(grad_y), as_matrix(x), accumulate, out);
}

}  // namespace

KernelTable<LinearKernels>& linear_table() {
  static KernelTable<LinearKernels> instance(
      "linear", {forward_cpu, grad_x_cpu, grad_weight_cpu, grad_bias_cpu});
  return instance;
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, WeightUse use) {
  check_has_rows(x, "x");
  const Tensor w = checked_weight(weight);
  const std::int64_t n = w.dim(0), k = w.dim(1);
  if (x.dim(-1) != k)
    fail<ShapeError>(fmt::format("linear: x must be [..., {}] for weight {}, got {}", k,
                                 weight.describe(), x.describe()));
  if (weight.dtype() != DType::bf16 || x.dtype() != DType::f32)
    check_dtype(weight, x.dtype(), "linear", "weight");
  check_device(weight, x, "linear", "weight");
  if (bias.defined()) {
    check_shape(bias, {n}, "linear", "bias");
    check_dtype(bias, sum_dtype(x.dtype()), "linear", "bias");
  }
  Tensor y = Tensor::empty(with_last(x.shape(), n), sum_dtype(x.dtype()), x.device());
  if (y.numel() == 0) return y;
  const ProfileProduct timed("linear forward", work_of(x, n));
  linear_table()
      .at(x.device())
      .forward(as_matrix(x), w, bias.defined() ? bias.contiguous() : bias, use, y.view({-1, n}));
  return y;
}

Tensor linear_grad_x(const Tensor& grad_y, const Tensor& weight) {
  check_has_rows(grad_y, "grad_y");
  const Tensor w = checked_weight(weight);
  if (grad_y.dim(-1) != w.dim(0))
    fail<ShapeError>(fmt::format("linear: grad_y must be [..., {}] for weight {}, got {}", w.dim(0),
                                 weight.describe(), grad_y.describe()));
  check_dtype(weight, grad_y.dtype(), "linear", "weight");
  check_device(weight, grad_y, "linear", "weight");
  Tensor out = Tensor::empty(with_last(grad_y.shape(), w.dim(1)), sum_dtype(grad_y.dtype()),
                             grad_y.device());
  if (out.numel() == 0) return out;
  const ProfileProduct timed("linear grad_x", work_of(grad_y, w.dim(1)));
  linear_table().at(grad_y.device()).grad_x(as_matrix(grad_y), w, out.view({-1, w.dim(1)}));
  return out;
}

Tensor linear_grad_weight(const Tensor& grad_y, const Tensor& x) {
  check_has_rows(grad_y, "grad_y");
  check_has_rows(x, "x");
  const Shape shape{grad_y.dim(-1), x.dim(-1)};
  const bool no_rows = x.numel() == 0 || grad_y.numel() == 0;
  const DType dtype = sum_dtype(x.dtype());
  Tensor out =
      no_rows ? Tensor::zeros(shape, dtype, x.device()) : Tensor::empty(shape, dtype, x.device());
  grad_weight_into(grad_y, x, false, out);
  return out;
}

void linear_accumulate_grad_weight(const Tensor& grad_y, const Tensor& x, const Tensor& sum) {
  check_has_rows(grad_y, "grad_y");
  check_has_rows(x, "x");
  grad_weight_into(grad_y, x, true, sum);
}

Tensor linear_grad_bias(const Tensor& grad_y) {
  check_has_rows(grad_y, "grad_y");
  Tensor out = Tensor::empty({grad_y.dim(-1)}, grad_y.dtype(), grad_y.device());
  if (out.numel() == 0) return out;
  linear_table().at(grad_y.device()).grad_bias(as_matrix(grad_y), out);
  return out;
}

}  // namespace lectern
