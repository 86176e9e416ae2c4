// CPU attention for generation: one or a few queries a sequence against a long cache. Reading the
// cache once bounds the time, so keys and values are used where they lie, in blocks that stay in
// cache for all queries and heads that share them. Long caches are cut into chunks whose size does
// not depend on the number of threads; the chunks' softmaxes are merged in order.
#include "core/convert_math.h"
#include "core/cpu/vector_math.h"
#include "core/ops/attention_cpu.h"

#include <cmath>
#include <limits>
#include <type_traits>

namespace lectern {

using namespace attention_tiles;

namespace {

constexpr std::int64_t kKeys = 64;    // a block
constexpr std::int64_t kChunk = 512;  // a task; a multiple of kKeys

/// Rows of keys or values as T, `stride` apart.
template <typename T>
struct Rows {
  const T* at;
  std::int64_t stride;
};

/// `count` stored rows as T: in place, or widened into `scratch`.
template <typename T, typename Stored>
Rows<T> rows_of(const StridedRows<const Stored>& stored, std::int64_t batch, std::int64_t first,
                std::int64_t column, std::int64_t count, std::int64_t dim, T* scratch) {
  const Stored* from = stored.at(batch, first, column);
  if constexpr (std::is_same_v<T, Stored>) {
    return {from, stored.row_stride};
  } else {
    for (std::int64_t j = 0; j < count; ++j)
      convert_math::row_to_f32(from + j * stored.row_stride, dim, scratch + j * dim);
    return {scratch, dim};
  }
}

/// Running maximum, running sum and unnormalised output of one query.
template <typename T>
struct State {
  T *max, *sum, *out;

  explicit State(T* at) : max(at), sum(at + 1), out(at + 2) {}
  static std::int64_t size(std::int64_t dim) { return dim + 2; }
  void clear(std::int64_t dim) const {
    *max = -std::numeric_limits<T>::infinity();
    std::fill_n(sum, dim + 1, T(0));
  }
  /// Shrinks what was summed so that it is relative to a new maximum.
  void rescale(T new_max, std::int64_t dim) const {
    const T correction = fast_exp(*max - new_max);
    *max = new_max;
    *sum *= correction;
    for (std::int64_t c = 0; c < dim; ++c) out[c] *= correction;
  }
};

/// Online softmax over one block of keys for one query.
template <typename T>
void visit_block(const AttentionView<T>& view, const T* query, const Rows<T>& keys,
                 const Rows<T>& values, std::int64_t count, const State<T>& state) {
  T p[kKeys];
  T max = *state.max;
  for (std::int64_t j = 0; j < count; ++j) {
    p[j] = static_cast<T>(view.scale) * dot(query, keys.at + j * keys.stride, view.dim);
    max = std::max(max, p[j]);
  }
  state.rescale(max, view.dim);
  for (std::int64_t j = 0; j < count; ++j) {
    p[j] = fast_exp(p[j] - max);
    *state.sum += p[j];
  }
  for (std::int64_t j = 0; j < count; ++j) {
    const T* value = values.at + j * values.stride;
    for (std::int64_t c = 0; c < view.dim; ++c) state.out[c] += p[j] * value[c];
  }
}

/// out = the softmax over all chunks, from the states of each.
template <typename T>
void merge_chunks(T* states, std::int64_t chunks, std::int64_t stride, std::int64_t dim, T* out) {
  const State<T> first(states);
  for (std::int64_t i = 1; i < chunks; ++i) {
    const State<T> next(states + i * stride);
    const T max = std::max(*first.max, *next.max);
    if (*next.sum == T(0)) continue;  // a chunk beyond what this query sees
    first.rescale(max, dim);
    next.rescale(max, dim);
    *first.sum += *next.sum;
    for (std::int64_t c = 0; c < dim; ++c) first.out[c] += next.out[c];
  }
  for (std::int64_t c = 0; c < dim; ++c) out[c] = first.out[c] / *first.sum;
}

}  // namespace

template <typename T, typename Stored>
void attention_decode_cpu(const AttentionView<T>& view, const StridedRows<const Stored>& keys,
                          const StridedRows<const Stored>& values, const StridedRows<T>& out) {
  const std::int64_t group = view.group(), queries = group * view.rows;
  const std::int64_t units = view.batch * view.kv_heads, stride = State<T>::size(view.dim);
  const std::int64_t chunks = (view.keys + kChunk - 1) / kChunk;
  const TaskRunner runner(view.work());
  const Tensor states = Tensor::empty({units, queries, chunks, stride}, kDTypeOf<T>);
  const bool widens = !std::is_same_v<T, Stored>;
  const Tensor scratch =
      Tensor::empty({widens ? runner.slots() : 0, 2 * kKeys * view.dim}, kDTypeOf<T>);
  const auto state_of = [&](std::int64_t unit, std::int64_t query, std::int64_t chunk) {
    return states.data<T>() + ((unit * queries + query) * chunks + chunk) * stride;
  };
  runner.run(units * chunks, [&](std::int64_t task) {
    const std::int64_t unit = task / chunks, chunk = task % chunks;
    const std::int64_t batch = unit / view.kv_heads, kv_head = unit % view.kv_heads;
    T* mine = widens ? scratch.data<T>() + runner.current() * 2 * kKeys * view.dim : nullptr;
    for (std::int64_t i = 0; i < queries; ++i) State<T>(state_of(unit, i, chunk)).clear(view.dim);
    const std::int64_t end = std::min((chunk + 1) * kChunk, view.ranges.end(batch, view.rows - 1));
    for (std::int64_t first = chunk * kChunk; first < end; first += kKeys) {
      const std::int64_t block = std::min(kKeys, end - first), column = kv_head * view.dim;
      const auto k = rows_of<T>(keys, batch, first, column, block, view.dim, mine);
      const auto v = rows_of<T>(values, batch, first, column, block, view.dim,
                                widens ? mine + kKeys * view.dim : nullptr);
      for (std::int64_t i = 0; i < queries; ++i) {
        const std::int64_t row = i / group, head = kv_head * group + i % group;
        const std::int64_t count = std::min(block, view.ranges.end(batch, row) - first);
        if (count > 0)
          visit_block(view, view.q.at(batch, row, head * view.dim), k, v, count,
                      State<T>(state_of(unit, i, chunk)));
      }
    }
  });
  for (std::int64_t unit = 0; unit < units; ++unit)
    for (std::int64_t i = 0; i < queries; ++i)
      merge_chunks(state_of(unit, i, 0), chunks, stride, view.dim,
                   out.at(unit / view.kv_heads, i / group,
                          (unit % view.kv_heads * group + i % group) * view.dim));
}

template void attention_decode_cpu(const AttentionView<float>&, const StridedRows<const float>&,
                                   const StridedRows<const float>&, const StridedRows<float>&);
template void attention_decode_cpu(const AttentionView<float>&, const StridedRows<const BFloat16>&,
                                   const StridedRows<const BFloat16>&, const StridedRows<float>&);
template void attention_decode_cpu(const AttentionView<double>&, const StridedRows<const double>&,
                                   const StridedRows<const double>&, const StridedRows<double>&);
}  // namespace lectern
