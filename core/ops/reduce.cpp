#include "core/ops/reduce.h"

#include "core/cpu/row_chunks.h"
#include "core/ops/elementwise.h"
#include "core/parallel.h"

#include <vector>

namespace lectern {
namespace {

constexpr std::int64_t kBlock = 1 << 14;

/// Sum of f(x[i]) in f64, by blocks of kBlock elements added in order.
template <typename T, typename F>
double sum_blocks(const Tensor& x, F f) {
  const T* values = x.data<T>();
  const std::int64_t n = x.numel(), blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> sums(static_cast<std::size_t>(blocks));
  parallel_for(blocks, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t block = first; block < last; ++block) {
      const T* at = values + block * kBlock;
      const std::int64_t count = std::min(kBlock, n - block * kBlock);
      double sum = 0;
#pragma omp simd reduction(+ : sum)
      for (std::int64_t i = 0; i < count; ++i) sum += f(at[i]);
      sums[static_cast<std::size_t>(block)] = sum;
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

void sum_cpu(const Tensor& x, const Tensor& out) {
  dispatch_floating(x.dtype(), "sum", [&]<typename T>() {
    *out.data<T>() =
        static_cast<T>(sum_blocks<T>(x, [](T value) { return static_cast<double>(value); }));
  });
}

double squared_norm_cpu(const Tensor& x) {
  if (x.dtype() == DType::bf16)
    return sum_blocks<BFloat16>(x, [](BFloat16 value) {
      const auto v = static_cast<double>(static_cast<float>(value));
      return v * v;
    });
  return dispatch_floating(x.dtype(), "squared_norm", [&]<typename T>() {
    return sum_blocks<T>(x, [](T value) {
      const auto v = static_cast<double>(value);
      return v * v;
    });
  });
}

void sum_leading_cpu(const Tensor& x, const Tensor& out) {
  dispatch_floating(x.dtype(), "sum_leading", [&]<typename T>() {
    const std::int64_t columns = out.numel();
    const RowChunks chunks(columns == 0 ? 0 : x.numel() / columns);
    const T* in = x.data<T>();
    // Wide sums have columns enough for all threads; only narrow ones need chunks of rows.
    if (chunks.count <= 1 || columns >= kBlock) {
      sum_rows_in_order(in, chunks.rows, columns, out.data<T>());
      return;
    }
    const Tensor partial = Tensor::zeros({chunks.count, columns}, x.dtype());
    T* sums = partial.data<T>();
    parallel_for(chunks.count, 1, [=](std::int64_t first, std::int64_t last) {
      for (std::int64_t chunk = first; chunk < last; ++chunk)
        for (std::int64_t row = chunks.begin(chunk); row < chunks.end(chunk); ++row) {
          T* sum = sums + chunk * columns;
#pragma omp simd
          for (std::int64_t c = 0; c < columns; ++c) sum[c] += in[row * columns + c];
        }
    });
    sum_rows_in_order(sums, chunks.count, columns, out.data<T>());
  });
}

}  // namespace

KernelTable<ReduceKernels>& reduce_table() {
  static KernelTable<ReduceKernels> table("reduce", {sum_cpu, squared_norm_cpu, sum_leading_cpu});
  return table;
}

Tensor sum(const Tensor& x) {
  const Tensor out = Tensor::empty({}, x.dtype(), x.device());
  reduce_table().at(x.device()).sum(x.contiguous(), out);
  return out;
}

Tensor sum_leading(const Tensor& x, const Shape& shape) {
  if (!is_suffix(shape, x.shape()))
    fail<ShapeError>(fmt::format("sum_leading: shape must be the last dimensions of {}, got {}",
                                 x.describe(), shape));
  const Tensor out = Tensor::empty(shape, x.dtype(), x.device());
  reduce_table().at(x.device()).sum_leading(x.contiguous(), out);
  return out;
}

double squared_norm(const Tensor& x) {
  return reduce_table().at(x.device()).squared_norm(x.contiguous());
}

}  // namespace lectern
