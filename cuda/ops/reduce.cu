#include "core/ops/reduce.h"
#include "cuda/collective.h"
#include "cuda/launch.h"
#include "cuda/ops/column_sum.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

namespace lectern::cuda {
namespace {

constexpr int kThreads = 256;
/// Partial sums of a whole tensor, and of a column.
constexpr std::int64_t kMostParts = 512, kMostRowParts = 64, kFewestRows = 32;

struct Identity {
  __device__ double operator()(double x) const { return x; }
};
struct Square {
  __device__ double operator()(double x) const { return x * x; }
};

/// partial[block] = sum of f(x[i]) over the block's share, in f64.
template <typename T, typename F>
__global__ void partial_sum_kernel(Span<const T> x, Span<double> partial, std::int64_t count, F f) {
  SharedMemory memory;
  const auto scratch = memory.take<double>(kThreads / kWarp);
  double sum = 0;
  for (std::int64_t i = grid_thread(); i < count; i += grid_threads())
    sum += f(static_cast<double>(to_float(x[i])));
  sum = block_sum(scratch, sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

template <typename T>
__global__ void final_sum_kernel(Span<const double> partial, Span<T> out, std::int64_t count) {
  SharedMemory memory;
  const auto scratch = memory.take<double>(kThreads / kWarp);
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += partial[i];
  sum = block_sum(scratch, sum);
  if (threadIdx.x != 0) return;
  if constexpr (std::is_same_v<T, double>)
    out[0] = sum;
  else
    out[0] = from_float<T>(static_cast<float>(sum));
}

template <typename F>
void sum_all(const Tensor& x, const Tensor& out, F f) {
  const std::int64_t parts =
      std::clamp<std::int64_t>(ceil_divide(x.numel(), kThreads * 8), 1, kMostParts);
  const Tensor partial = Tensor::empty({parts}, DType::f64, x.device());
  const std::size_t shared = shared_bytes_of<double>(kThreads / kWarp);
  dispatch_storage(x.dtype(), "sum", [&]<typename T>() {
    launch("partial_sum", {static_cast<unsigned>(parts), kThreads, shared},
           partial_sum_kernel<T, F>, span<const T>(x), span<double>(partial), x.numel(), f);
  });
  const auto finish = [&]<typename T>() {
    launch("final_sum", {1, kThreads, shared}, final_sum_kernel<T>, span<const double>(partial),
           span<T>(out), parts);
  };
  if (out.dtype() == DType::f64)
    finish.template operator()<double>();
  else
    dispatch_storage(out.dtype(), "sum", finish);
}

/// partial[blockIdx.y, c] = sum over the rows of part blockIdx.y. A thread has a column.
template <typename T>
__global__ void column_part_kernel(Span<const T> x, Span<float> partial, std::int64_t rows,
                                   std::int64_t columns, std::int64_t rows_a_part) {
  const std::int64_t column = grid_thread(), part = blockIdx.y;
  if (column >= columns) return;
  const std::int64_t end = rows < (part + 1) * rows_a_part ? rows : (part + 1) * rows_a_part;
  float sum = 0;
  for (std::int64_t row = part * rows_a_part; row < end; ++row)
    sum += to_float(x[row * columns + column]);
  partial[part * columns + column] = sum;
}

template <typename T>
__global__ void column_total_kernel(Span<const float> partial, Span<T> out, std::int64_t parts,
                                    std::int64_t columns) {
  const std::int64_t column = grid_thread();
  if (column >= columns) return;
  float sum = 0;
  for (std::int64_t part = 0; part < parts; ++part) sum += partial[part * columns + column];
  out[column] = from_float<T>(sum);
}

void sum(const Tensor& x, const Tensor& out) { sum_all(x, out, Identity{}); }

double squared_norm(const Tensor& x) {
  const Tensor out = Tensor::empty({}, DType::f64, x.device());
  sum_all(x, out, Square{});
  return out.item();
}

void sum_leading(const Tensor& x, const Tensor& out) {
  const std::int64_t columns = out.numel();
  if (columns > 0) column_sum(x, x.numel() / columns, columns, out);
}

}  // namespace

void column_sum(const Tensor& x, std::int64_t rows, std::int64_t columns, const Tensor& out) {
  const std::int64_t rows_a_part = std::max(kFewestRows, ceil_divide(rows, kMostRowParts));
  const std::int64_t parts = std::max<std::int64_t>(1, ceil_divide(rows, rows_a_part));
  const Tensor partial = Tensor::empty({parts, columns}, DType::f32, x.device());
  const auto blocks = static_cast<unsigned>(ceil_divide(columns, kThreads));
  dispatch_storage(x.dtype(), "column_sum", [&]<typename T>() {
    launch("column_part", {dim3(blocks, static_cast<unsigned>(parts)), kThreads},
           column_part_kernel<T>, span<const T>(x), span<float>(partial), rows, columns,
           rows_a_part);
  });
  dispatch_storage(out.dtype(), "column_sum", [&]<typename T>() {
    launch("column_total", {blocks, kThreads}, column_total_kernel<T>, span<const float>(partial),
           span<T>(out), parts, columns);
  });
}

void register_reduce() { reduce_table().set(DeviceType::cuda, {sum, squared_norm, sum_leading}); }

}  // namespace lectern::cuda
