// CPU attention for generation: one or a few queries a sequence against a long cache. Reading the
// cache once bounds the time, so keys and values are used where they lie, in blocks that stay in
// cache for all queries and heads that share them.
#include "core/ops/attention_cpu.h"
#include "core/vector_math.h"

#include <cmath>
#include <limits>

namespace lectern {

using namespace attention_tiles;

namespace {

constexpr std::int64_t kKeys = 64;  // a block

/// Online softmax over one block of keys for one query.
template <typename T>
void visit_block(const AttentionView<T>& view, const T* query, const T* keys, const T* values,
                 std::int64_t count, T* running_max, T* running_sum, T* out) {
  T p[kKeys];
  T max = *running_max;
  for (std::int64_t j = 0; j < count; ++j) {
    p[j] = static_cast<T>(view.scale) * dot(query, keys + j * view.k.row_stride, view.dim);
    max = std::max(max, p[j]);
  }
  const T correction = fast_exp(*running_max - max);
  T sum = *running_sum * correction;
  for (std::int64_t j = 0; j < count; ++j) {
    p[j] = fast_exp(p[j] - max);
    sum += p[j];
  }
  for (std::int64_t c = 0; c < view.dim; ++c) out[c] *= correction;
  for (std::int64_t j = 0; j < count; ++j) {
    const T* value = values + j * view.v.row_stride;
    for (std::int64_t c = 0; c < view.dim; ++c) out[c] += p[j] * value[c];
  }
  *running_max = max;
  *running_sum = sum;
}

}  // namespace

template <typename T>
void attention_decode_cpu(const AttentionView<T>& view, const StridedRows<T>& out) {
  const std::int64_t group = view.group(), queries = group * view.rows;
  // Running maximum, running sum and unnormalised output of each query of each unit.
  const std::int64_t units = view.batch * view.kv_heads, stride = view.dim + 2;
  const Tensor state = Tensor::empty({units, queries, stride}, kDTypeOf<T>);
  TaskRunner(view.work()).run(units, [&](std::int64_t unit) {
    const std::int64_t batch = unit / view.kv_heads, kv_head = unit % view.kv_heads;
    T* mine = state.data<T>() + unit * queries * stride;
    for (std::int64_t i = 0; i < queries; ++i) {
      std::fill_n(mine + i * stride, stride, T(0));
      mine[i * stride] = -std::numeric_limits<T>::infinity();
    }
    const std::int64_t end = view.ranges.end(batch, view.rows - 1);
    for (std::int64_t first = 0; first < end; first += kKeys)
      for (std::int64_t i = 0; i < queries; ++i) {
        const std::int64_t row = i / group, head = kv_head * group + i % group;
        const std::int64_t count = std::min(kKeys, view.ranges.end(batch, row) - first);
        T* own = mine + i * stride;
        if (count > 0)
          visit_block(view, view.q.at(batch, row, head * view.dim),
                      view.k.at(batch, first, kv_head * view.dim),
                      view.v.at(batch, first, kv_head * view.dim), count, own, own + 1, own + 2);
      }
    for (std::int64_t i = 0; i < queries; ++i) {
      const std::int64_t row = i / group, head = kv_head * group + i % group;
      const T* own = mine + i * stride;
      T* to = out.at(batch, row, head * view.dim);
      for (std::int64_t c = 0; c < view.dim; ++c) to[c] = own[2 + c] / own[1];
    }
  });
}

template void attention_decode_cpu(const AttentionView<float>&, const StridedRows<float>&);
template void attention_decode_cpu(const AttentionView<double>&, const StridedRows<double>&);

}  // namespace lectern
