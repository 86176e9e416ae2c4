#include "core/ops/rows.h"
#include "cuda/launch.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace lectern::cuda {
namespace {

constexpr unsigned kThreads = 256;
/// Rows of the gradient that one block adds up: a token that stands everywhere (padding) is shared
/// out over many blocks.
constexpr std::int64_t kRowsASegment = 32;

/// out[i] = source[index[i, 1]] where index[i, 0] is the source's number; columns a multiple of N.
template <typename From, typename T, int N>
__global__ void select_kernel(Span<const From> source, std::int32_t number,
                              Span<const std::int32_t> index, Span<T> out, std::int64_t rows,
                              std::int64_t columns) {
  const std::int64_t packs = columns / N;
  for (std::int64_t i = grid_thread(); i < rows * packs; i += grid_threads()) {
    const std::int64_t row = i / packs, column = i % packs * N;
    if (index[2 * row] != number) continue;
    const auto from = source.template load<N>(index[2 * row + 1] * columns + column);
    Pack<T, N> to;
    for (int k = 0; k < N; ++k) to[k] = from_float<T>(to_float(from[k]));
    out.template store<N>(row * columns + column, to);
  }
}

/// The places of one source's rows in `index`, sorted by row and cut into segments of one row each.
/// A row with several segments adds them up in partial sums.
struct Segments {
  std::vector<std::int32_t> place;   // all places, by row, ascending in a row
  std::vector<std::int32_t> begin;   // [segments + 1] into place
  std::vector<std::int32_t> target;  // [segments] a row, or -1 - slot of a partial sum
  std::vector<std::int32_t> row;     // rows with partial sums,
  std::vector<std::int32_t> slot;    // [rows + 1] and where theirs begin
};

Segments segments_of(const Tensor& index, std::int32_t source, std::int64_t rows) {
  const std::int32_t* at = index.data<std::int32_t>();
  std::vector<std::int32_t> count(static_cast<std::size_t>(rows) + 1, 0);
  for (std::int64_t i = 0; i < index.dim(0); ++i)
    if (at[2 * i] == source) ++count[static_cast<std::size_t>(at[2 * i + 1]) + 1];
  std::partial_sum(count.begin(), count.end(), count.begin());
  Segments out;
  out.place.resize(static_cast<std::size_t>(count.back()));
  std::vector<std::int32_t> next(count.begin(), count.end() - 1);
  for (std::int64_t i = 0; i < index.dim(0); ++i)
    if (at[2 * i] == source)
      out.place[static_cast<std::size_t>(next[static_cast<std::size_t>(at[2 * i + 1])]++)] =
          static_cast<std::int32_t>(i);
  std::int32_t slots = 0;
  for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
    const std::int32_t first = count[r], last = count[r + 1];
    if (first == last) continue;
    const bool several = last - first > kRowsASegment;
    if (several) {
      out.row.push_back(static_cast<std::int32_t>(r));
      out.slot.push_back(slots);
    }
    for (std::int32_t begin = first; begin < last; begin += kRowsASegment) {
      out.begin.push_back(begin);
      out.target.push_back(several ? -1 - slots++ : static_cast<std::int32_t>(r));
    }
  }
  out.begin.push_back(count.back());
  out.slot.push_back(slots);
  return out;
}

template <typename T>
struct ScatterArguments {
  Span<const T> grad;
  Span<const std::int32_t> place, begin, target;
  Span<T> out;
  Span<float> partial;
  std::int64_t columns;
};

template <typename T>
__global__ void add_segments_kernel(ScatterArguments<T> a) {
  const std::int64_t segment = blockIdx.x;
  const std::int32_t target = a.target[segment], end = a.begin[segment + 1];
  for (std::int64_t column = threadIdx.x; column < a.columns; column += blockDim.x) {
    float sum = 0;
    for (std::int32_t i = a.begin[segment]; i < end; ++i)
      sum += to_float(a.grad[a.place[i] * a.columns + column]);
    if (target >= 0)
      a.out[target * a.columns + column] = from_float<T>(sum);
    else
      a.partial[(-1 - target) * a.columns + column] = sum;
  }
}

template <typename T>
__global__ void add_partial_kernel(Span<const float> partial, Span<const std::int32_t> rows,
                                   Span<const std::int32_t> slots, Span<T> out,
                                   std::int64_t columns) {
  const std::int64_t row = rows[blockIdx.x];
  const std::int32_t end = slots[blockIdx.x + 1];
  for (std::int64_t column = threadIdx.x; column < columns; column += blockDim.x) {
    float sum = 0;
    for (std::int32_t slot = slots[blockIdx.x]; slot < end; ++slot)
      sum += partial[slot * columns + column];
    out[row * columns + column] = from_float<T>(sum);
  }
}

/// One launch a source: a model has four at most, and they may be stored in two dtypes.
void select(const std::vector<Tensor>& sources, const Tensor& index, const Tensor& out) {
  if (out.numel() == 0) return;
  const std::int64_t rows = out.dim(0), columns = out.dim(1);
  const Tensor places = on_device(index, out.device());
  dispatch_storage(out.dtype(), "select_rows", [&]<typename T>() {
    for (std::size_t s = 0; s < sources.size(); ++s)
      dispatch_storage(sources[s].dtype(), "select_rows", [&]<typename From>() {
        // Four elements are at most 16 bytes in either dtype.
        const bool wide = columns % 4 == 0 && are_aligned({&sources[s], &out});
        const LaunchShape shape{grid_for(rows * columns / 4, kThreads), kThreads};
        launch("select_rows", shape, wide ? select_kernel<From, T, 4> : select_kernel<From, T, 1>,
               span<const From>(sources[s]), static_cast<std::int32_t>(s),
               span<const std::int32_t>(places), span<T>(out), rows, columns);
      });
  });
}

Tensor uploaded(const std::vector<std::int32_t>& values, Device device) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())}).to(device);
}

void select_backward(const Tensor& grad_output, const Tensor& index, std::int32_t source,
                     const Tensor& grad_source) {
  if (grad_source.numel() == 0) return;
  const Device device = grad_source.device();
  const std::int64_t columns = grad_source.dim(1);
  grad_source.fill(0);
  const Tensor host_index = index.to(Device{});
  const Segments segments = segments_of(host_index, source, grad_source.dim(0));
  if (segments.place.empty()) return;
  const Tensor place = uploaded(segments.place, device), begin = uploaded(segments.begin, device);
  const Tensor target = uploaded(segments.target, device);
  const Tensor partial = Tensor::empty({segments.slot.back(), columns}, DType::f32, device);
  const unsigned threads = row_threads(columns, kThreads);
  dispatch_storage(grad_source.dtype(), "select_rows", [&]<typename T>() {
    launch("add_segments", {static_cast<unsigned>(segments.target.size()), threads},
           add_segments_kernel<T>,
           ScatterArguments<T>{span<const T>(grad_output), span<const std::int32_t>(place),
                               span<const std::int32_t>(begin), span<const std::int32_t>(target),
                               span<T>(grad_source), span<float>(partial), columns});
    if (segments.row.empty()) return;
    const Tensor row = uploaded(segments.row, device), slot = uploaded(segments.slot, device);
    launch("add_partial", {static_cast<unsigned>(segments.row.size()), threads},
           add_partial_kernel<T>, span<const float>(partial), span<const std::int32_t>(row),
           span<const std::int32_t>(slot), span<T>(grad_source), columns);
  });
}

}  // namespace

void register_rows() { rows_table().set(DeviceType::cuda, {select, select_backward}); }

}  // namespace lectern::cuda
