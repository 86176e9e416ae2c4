#include "core/ops/rows.h"

#include "core/parallel.h"

#include <algorithm>
#include <limits>

namespace lectern {
namespace {

void select_cpu(const std::vector<Tensor>& sources, const Tensor& index, const Tensor& out) {
  dispatch_floating(out.dtype(), "select_rows", [&]<typename T>() {
    const std::int64_t n = out.dim(0), columns = out.dim(1);
    std::vector<const void*> from;
    std::vector<bool> is_bf16;
    for (const Tensor& source : sources) {
      from.push_back(source.raw());
      is_bf16.push_back(source.dtype() == DType::bf16);
    }
    const std::int32_t* at = index.data<std::int32_t>();
    T* to = out.data<T>();
    const std::int64_t grain = 1 + (1 << 14) / std::max<std::int64_t>(columns, 1);
    parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const auto source = static_cast<std::size_t>(at[2 * i]);
        const std::int64_t first = at[2 * i + 1] * columns;
        if (is_bf16[source])
          std::transform(static_cast<const BFloat16*>(from[source]) + first,
                         static_cast<const BFloat16*>(from[source]) + first + columns,
                         to + i * columns, [](BFloat16 x) { return static_cast<float>(x); });
        else
          std::copy_n(static_cast<const T*>(from[source]) + first, columns, to + i * columns);
      }
    });
  });
}

void select_backward_cpu(const Tensor& grad_output, const Tensor& index, std::int32_t source,
                         const Tensor& grad_source) {
  dispatch_floating(grad_output.dtype(), "select_rows", [&]<typename T>() {
    const std::int64_t n = grad_output.dim(0), columns = grad_output.dim(1);
    const T* grads = grad_output.data<T>();
    const std::int32_t* at = index.data<std::int32_t>();
    T* sums = grad_source.data<T>();
    parallel_for(grad_source.numel(), 1 << 16, [=](std::int64_t begin, std::int64_t end) {
      std::fill(sums + begin, sums + end, T(0));
    });
    // Rows repeat, columns do not: a thread owns a band of columns, so no two write one element.
    parallel_for(columns, 64, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = 0; i < n; ++i) {
        if (at[2 * i] != source) continue;
        const T* from = grads + i * columns;
        T* to = sums + at[2 * i + 1] * columns;
#pragma omp simd
        for (std::int64_t c = begin; c < end; ++c) to[c] += from[c];
      }
    });
  });
}

/// f64 or f32 as the sources that are not bf16; f32 when all are.
DType result_dtype(const std::vector<Tensor>& sources) {
  for (const Tensor& source : sources)
    if (source.dtype() != DType::bf16) return source.dtype();
  return DType::f32;
}

void check_sources(const std::vector<Tensor>& sources) {
  if (sources.empty()) fail<ShapeError>("select_rows: sources must have 1 or more, got 0");
  for (std::size_t s = 0; s < sources.size(); ++s) {
    const std::string name = fmt::format("source {}", s);
    check_ndim(sources[s], 2, "select_rows", name);
    if (sources[s].dtype() != DType::bf16 || result_dtype(sources) != DType::f32)
      check_dtype(sources[s], result_dtype(sources), "select_rows", name);
    check_device(sources[s], sources[0], "select_rows", name);
    check_shape(sources[s], Shape{sources[s].dim(0), sources[0].dim(1)}, "select_rows", name);
  }
}

void check_index_layout(const Tensor& index) {
  check_dtype(index, DType::i32, "select_rows", "index");
  check_ndim(index, 2, "select_rows", "index");
  check_shape(index, Shape{index.dim(0), 2}, "select_rows", "index");
  if (index.device().type != DeviceType::cpu)
    fail<DeviceError>(
        fmt::format("select_rows: index must be on the CPU, got {}", index.describe()));
}

void check_index(const std::vector<Tensor>& sources, const Tensor& index) {
  const std::int32_t* at = index.data<std::int32_t>();
  const auto count = static_cast<std::int32_t>(sources.size());
  for (std::int64_t i = 0; i < index.dim(0); ++i) {
    const std::int32_t source = at[2 * i], row = at[2 * i + 1];
    if (source < 0 || source >= count)
      fail<ShapeError>(fmt::format("select_rows: index[{}] must name a source in 0..{}, got {}", i,
                                   count - 1, source));
    const std::int64_t rows = sources[static_cast<std::size_t>(source)].dim(0);
    if (row < 0 || row >= rows)
      fail<ShapeError>(
          fmt::format("select_rows: index[{}] must name a row of source {} with {} rows, got {}", i,
                      source, rows, row));
  }
}

}  // namespace

KernelTable<RowsKernels>& rows_table() {
  static KernelTable<RowsKernels> table("select_rows", {select_cpu, select_backward_cpu});
  return table;
}

Tensor select_rows(const std::vector<Tensor>& sources, const Tensor& index) {
  check_sources(sources);
  check_index_layout(index);
  const Tensor dense_index = index.contiguous();
  check_index(sources, dense_index);
  std::vector<Tensor> dense;
  for (const Tensor& source : sources) dense.push_back(source.contiguous());
  const Tensor out =
      Tensor::empty({index.dim(0), dense[0].dim(1)}, result_dtype(dense), dense[0].device());
  rows_table().at(out.device()).select(dense, dense_index, out);
  return out;
}

Tensor select_rows_backward(const Tensor& grad_output, const Tensor& index, std::int32_t source,
                            std::int64_t rows) {
  check_index_layout(index);
  check_ndim(grad_output, 2, "select_rows", "grad_output");
  check_shape(grad_output, Shape{index.dim(0), grad_output.dim(1)}, "select_rows", "grad_output");
  const Tensor dense_index = index.contiguous();
  const std::int32_t* at = dense_index.data<std::int32_t>();
  for (std::int64_t i = 0; i < index.dim(0); ++i)
    if (at[2 * i] == source && (at[2 * i + 1] < 0 || at[2 * i + 1] >= rows))
      fail<ShapeError>(
          fmt::format("select_rows: index[{}] must name a row of source {} with {} rows, got {}", i,
                      source, rows, at[2 * i + 1]));
  const Tensor grad =
      Tensor::empty({rows, grad_output.dim(1)}, grad_output.dtype(), grad_output.device());
  rows_table()
      .at(grad.device())
      .select_backward(grad_output.contiguous(), dense_index, source, grad);
  return grad;
}

Tensor embedding_index(const Tensor& ids, std::int64_t rows) {
  if (!ids.defined() || (ids.dtype() != DType::i32 && ids.dtype() != DType::i64))
    fail<DTypeError>(fmt::format("embedding: ids must be i32 or i64, got {}", ids.describe()));
  if (rows > std::numeric_limits<std::int32_t>::max())
    fail<ShapeError>(fmt::format("embedding: rows must be at most {}, got {}",
                                 std::numeric_limits<std::int32_t>::max(), rows));
  const Tensor wide = ids.to(DType::i64).contiguous();
  const std::int64_t* id = wide.data<std::int64_t>();
  const Tensor index = Tensor::empty({ids.numel(), 2}, DType::i32);
  std::int32_t* to = index.data<std::int32_t>();
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    if (id[i] < 0 || id[i] >= rows)
      fail<ShapeError>(
          fmt::format("embedding: ids[{}] must be in 0..{}, got {}", i, rows - 1, id[i]));
    to[2 * i] = 0;
    to[2 * i + 1] = static_cast<std::int32_t>(id[i]);
  }
  return index;
}

}  // namespace lectern
