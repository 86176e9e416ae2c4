// CPU backward of attention. A unit is (batch, kv head, chunk of keys): it owns grad_k and grad_v
// of its keys and walks all queries in tiles of kTileRows against blocks of keys, so that every
// product is computed once (5 matrix products, none repeated):
//   P = exp(scores - log_sum_exp), dS = P (grad_out V^T - delta), delta = rowsum(grad_out out),
//   grad_q += dS K, grad_v += P^T grad_out, grad_k += dS^T Q.
// grad_q of several chunks is written apart and added in order. The number of chunks and of task
// groups depends on the shapes only, so the result does not depend on the number of threads.
// With bfloat16 cells Q, K, V, grad_out, P and dS are rounded for these products; the softmax, its
// gradient, the tables' gradients and all sums stay float.
#include "core/ops/attention_backward_plan.h"

namespace lectern {

using namespace attention_tiles;
using namespace attention_plan;

namespace {

/// c[r] += sum_k a[r * row_stride + k * depth_stride] * b[k * b_stride] for r < rows, where c and b
/// are rows of `vectors` vectors and strides may be negative.
template <typename T>
void add_product(std::int64_t rows, std::int64_t depth, const T* a, std::int64_t row_stride,
                 std::int64_t depth_stride, const T* b, std::int64_t b_stride, T* c,
                 std::int64_t c_stride, std::int64_t vectors) {
  for (std::int64_t first = 0; first < rows; first += kRows) {
    const std::int64_t count = std::min<std::int64_t>(kRows, rows - first);
    for_column_chunks(vectors, [&]<typename Count>(Count, std::int64_t column) {
      constexpr int kVectors = int(Count::value);
      Vector<T> sums[kRows][kVectors] = {};
      multiply<T, kVectors>(depth, a + first * row_stride, row_stride, depth_stride,
                            b + column * kLanes<T>, b_stride, sums);
      for (int r = 0; r < kRows; ++r) {
        if (r >= count) break;
        T* to = c + (first + r) * c_stride + column * kLanes<T>;
        for (int v = 0; v < kVectors; ++v)
          store(to + v * kLanes<T>, Vector<T>(load(to + v * kLanes<T>) + sums[r][v]));
      }
    });
  }
}

/// One query tile against one key block: probabilities and score gradients in kStride rows.
template <typename T, typename Cell, int kVectors>
__attribute__((noinline)) void probabilities(const BackwardBuffers<T, Cell>& buffers,
                                             std::int64_t depth, std::int64_t row, const Cell* keys,
                                             const Cell* values, bool relative, T* p, T* ds) {
  Vector<T> sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v)
      sums[r][v] = relative ? load(p + r * kStride<T> + v * kLanes<T>) : Vector<T>{};
  multiply<Cell, kVectors>(depth, buffers.query + row * depth, Constant<1>{}, Constant<kRows>{},
                           keys, kPanel<T>, sums);
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v)
      store(p + r * kStride<T> + v * kLanes<T>,
            exp2_vector<T>(sums[r][v] - buffers.log_sum_exp[row + r]));
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) sums[r][v] = splat(-buffers.delta[row + r]);
  multiply<Cell, kVectors>(depth, buffers.grad_out + row * depth, Constant<1>{}, Constant<kRows>{},
                           values, kPanel<T>, sums);
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v)
      store(ds + r * kStride<T> + v * kLanes<T>,
            Vector<T>(sums[r][v] * load(p + r * kStride<T> + v * kLanes<T>)));
}

/// kRows rows of `width` numbers as cells: pairs of rows in `across`, pairs along a row in `along`
/// (or null).
inline void round_rows(const float* rows, std::int64_t width, Bf16Pair* across, Bf16Pair* along) {
  constexpr std::int64_t kL = kLanes<float>, kS = kStride<float>;
  using Pairs = Vector<Bf16Pair>;
  for (int r = 0; r < kRows; r += 2)
    for (std::int64_t i = 0; i < width; i += kL)
      store(across + r / 2 * kS + i,
            round_across<Pairs>(load(rows + r * kS + i), load(rows + (r + 1) * kS + i)));
  for (int r = 0; along != nullptr && r < kRows; ++r)
    for (std::int64_t i = 0; i < width; i += 2 * kL)
      store(along + r * (kS / 2) + i / 2,
            round_along<Pairs>(load(rows + r * kS + i), load(rows + r * kS + i + kL)));
}

template <typename T, typename Cell>
class BackwardUnit {
 public:
  /// grad_tables: [2 grid_h - 1 + 2 grid_w - 1][padded dim], added to. partial: grad_q of all
  /// (chunk, batch, head), or null when there is one chunk.
  BackwardUnit(const BackwardPlan<T, Cell>& plan, const BackwardBuffers<T, Cell>& buffers,
               std::int64_t unit, T* grad_tables, T* partial)
      : plan_(plan),
        view_(plan.view),
        buffers_(buffers),
        grad_tables_(grad_tables),
        partial_(partial),
        dim_(view_.dim),
        padded_dim_(view_.padded_dim()),
        depth_(cells<Cell>(dim_)),
        vectors_(padded_dim_ / kLanes<T>),
        batch_(unit / plan.chunks / view_.kv_heads),
        kv_head_(unit / plan.chunks % view_.kv_heads),
        chunk_(unit % plan.chunks),
        key_begin_(chunk_ * plan.chunk_keys),
        key_end_(std::min(view_.keys, key_begin_ + plan.chunk_keys)) {}

  void run() {
    const std::int64_t keys = key_end_ - key_begin_, column = kv_head_ * dim_;
    const T* k = view_.k.at(batch_, key_begin_, column);
    const T* v = view_.v.at(batch_, key_begin_, column);
    const std::int64_t width = kPanel<T>;
    pack_panels(k, keys, view_.k.row_stride, dim_, width, T(1), buffers_.keys);
    pack_panels(v, keys, view_.v.row_stride, dim_, width, T(1), buffers_.values);
    pack_rows(k, keys, view_.k.row_stride, dim_, keys, padded_dim_, static_cast<T>(view_.scale),
              buffers_.key_rows);
    const std::int64_t grad_rows = keys + kRows;
    std::fill_n(buffers_.grad_k, grad_rows * padded_dim_, T(0));
    std::fill_n(buffers_.grad_v, grad_rows * padded_dim_, T(0));
    for (std::int64_t h = 0; h < view_.group(); ++h) run_head(kv_head_ * view_.group() + h);
    write_rows(buffers_.grad_k, keys, static_cast<T>(view_.scale),
               plan_.backward.grad_k.at(batch_, key_begin_, column),
               plan_.backward.grad_k.row_stride);
    write_rows(buffers_.grad_v, keys, T(1), plan_.backward.grad_v.at(batch_, key_begin_, column),
               plan_.backward.grad_v.row_stride);
  }

 private:
  void run_head(std::int64_t head) {
    head_ = head;
    grad_q_ = partial_ == nullptr
                  ? buffers_.grad_q
                  : partial_ + ((chunk_ * view_.batch + batch_) * view_.heads + head) *
                                   plan_.partial_size();
    std::fill_n(grad_q_, plan_.partial_size(), T(0));
    const T* q = view_.q.at(batch_, 0, head * dim_);
    pack_rows(q, view_.rows, view_.q.row_stride, dim_, plan_.padded_rows, padded_dim_, T(1),
              buffers_.query_cells);
    if (kIsPair<Cell> && plan_.tables.used())
      pack_rows(q, view_.rows, view_.q.row_stride, dim_, plan_.padded_rows, padded_dim_, T(1),
                buffers_.query_rows);
    if (plan_.tables.used()) {
      std::fill_n(buffers_.grad_h, view_.rows * plan_.stride_h, T(0));
      std::fill_n(buffers_.grad_w, view_.rows * plan_.stride_w, T(0));
    }
    for (std::int64_t first = 0; first < view_.rows; first += kTileRows) run_tile(first);
    if (plan_.tables.used()) add_table_gradients();
    if (partial_ == nullptr)
      write_rows(grad_q_, view_.rows, T(1), plan_.backward.grad_q.at(batch_, 0, head * dim_),
                 plan_.backward.grad_q.row_stride);
  }

  void run_tile(std::int64_t first) {
    first_ = first;
    count_ = std::min<std::int64_t>(kTileRows, view_.rows - first);
    KeyRange range = union_of(view_.ranges, batch_, first, count_);
    range = {std::max(range.begin, key_begin_), std::min(range.end, key_end_)};
    if (range.empty()) return;
    load_tile();
    for (std::int64_t block = key_begin_ + (range.begin - key_begin_) / kPanel<T> * kPanel<T>;
         block < range.end; block += kBlock<T>)
      run_block({block, std::min(block + kBlock<T>, range.end)});
  }

  void load_tile() {
    const StridedRows<const T>& grad = plan_.backward.grad_out;
    const T* grad_out = grad.at(batch_, first_, head_ * dim_);
    const T* out = plan_.backward.out.at(batch_, first_, head_ * dim_);
    pack_panels(view_.q.at(batch_, first_, head_ * dim_), count_, view_.q.row_stride, dim_,
                std::int64_t{kRows}, view_.score_factor(), buffers_.query);
    pack_panels(grad_out, count_, grad.row_stride, dim_, std::int64_t{kRows}, T(1),
                buffers_.grad_out);
    pack_rows(grad_out, count_, grad.row_stride, dim_, kTileRows, padded_dim_, T(1),
              buffers_.grad_out_rows);
    if (plan_.tables.used())
      plan_.tables.compute(buffers_.query, (count_ + kRows - 1) / kRows, depth_, buffers_.relative);
    const T* saved = plan_.backward.log_sum_exp + (batch_ * view_.heads + head_) * view_.rows;
    for (std::int64_t r = 0; r < kTileRows; ++r) {
      buffers_.delta[r] = r < count_ ? dot(grad_out + r * grad.row_stride,
                                           out + r * plan_.backward.out.row_stride, dim_)
                                     : T(0);
      buffers_.log_sum_exp[r] = r < count_ ? saved[first_ + r] * T(1.4426950408889634074) : T(0);
    }
  }

  void run_block(KeyRange block) {
    const std::int64_t groups = (count_ + kRows - 1) / kRows;
    KeyRange seen[kTileRows / kRows];
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t row = g * kRows;
      KeyRange range =
          union_of(view_.ranges, batch_, first_ + row, std::min<std::int64_t>(kRows, count_ - row));
      range.begin =
          std::max(block.begin, key_begin_ + std::max<std::int64_t>(0, (range.begin - key_begin_) /
                                                                           kPanel<T> * kPanel<T>));
      range.end = std::min(block.end, range.end);
      seen[g] = range;
      run_group(row, block, range);
    }
    // grad_v and grad_k, kRows keys at a time, over the query groups that see any of them.
    const Cell* queries = buffers_.query_cells + first_ / kPer<Cell> * padded_dim_;
    for (std::int64_t key = block.begin; key < block.end; key += kRows) {
      std::int64_t from = 0, to = groups;
      const auto sees = [&](std::int64_t g) {
        return !seen[g].empty() && seen[g].begin < key + kRows && seen[g].end > key;
      };
      while (from < to && !sees(from)) ++from;
      while (to > from && !sees(to - 1)) --to;
      constexpr std::int64_t kGroup = kRows / kPer<Cell>;  // cells
      const std::int64_t depth = (to - from) * kGroup, skip = from * kGroup;
      const std::int64_t column = key - block.begin, row = key - key_begin_;
      add_tiles(depth, buffers_.p_cells + skip * kStride<T> + column, Constant<1>{},
                Constant<kStride<T>>{}, buffers_.grad_out_rows + skip * padded_dim_, kNone,
                buffers_.grad_v + row * padded_dim_, padded_dim_);
      add_tiles(depth, buffers_.ds_cells + skip * kStride<T> + column, Constant<1>{},
                Constant<kStride<T>>{}, queries + skip * padded_dim_, kNone,
                buffers_.grad_k + row * padded_dim_, padded_dim_);
    }
  }

  /// P and dS of kRows queries, their part of grad_q and of the relative scores' gradient. Columns
  /// outside `range` become zero.
  void run_group(std::int64_t row, KeyRange block, KeyRange range) {
    T* p = buffers_.p + row * kStride<T>;
    T* ds = buffers_.ds + row * kStride<T>;
    const std::int64_t width =
        round_up(block.end - block.begin, std::max<std::int64_t>(kLanes<T>, kRows));
    if (range.empty()) {
      std::fill_n(p, kRows * kStride<T>, T(0));
      std::fill_n(ds, kRows * kStride<T>, T(0));
      round_group(row, kStride<T>);
      return;
    }
    const std::int64_t skip = range.begin - block.begin;
    const std::int64_t vectors = (range.end - range.begin + kLanes<T> - 1) / kLanes<T>;
    if (plan_.tables.used())
      for (std::int64_t r = 0; r < std::min<std::int64_t>(kRows, count_ - row); ++r)
        plan_.tables.fill_row(buffers_.relative + (row + r) * plan_.tables.stride, first_ + row + r,
                              range.begin, range.end, p + r * kStride<T> + skip);
    for (std::int64_t v = 0; v < vectors; v += kColumns) {
      const std::int64_t at = skip + v * kLanes<T>;
      const std::int64_t packed = (range.begin - key_begin_ + v * kLanes<T>)*depth_;
      const auto panel = [&]<typename Count>(Count) {
        probabilities<T, Cell, int(Count::value)>(buffers_, depth_, row, buffers_.keys + packed,
                                                  buffers_.values + packed, plan_.tables.used(),
                                                  p + at, ds + at);
      };
      if (vectors - v >= 3)
        panel(Constant<3>{});
      else if (vectors - v == 2)
        panel(Constant<2>{});
      else
        panel(Constant<1>{});
    }
    for (std::int64_t r = 0; r < kRows; ++r)
      hide(row + r, block, range, width, p + r * kStride<T>, ds + r * kStride<T>);
    if (plan_.tables.used())
      for (std::int64_t r = 0; r < std::min<std::int64_t>(kRows, count_ - row); ++r)
        add_relative(first_ + row + r, range, ds + r * kStride<T> + skip);
    const Cell* ds_rows = round_group(row, width);
    add_tiles(cells<Cell>(range.end - range.begin), ds_rows + skip / kPer<Cell>,
              Constant<kStride<T> / kPer<Cell>>{}, Constant<1>{},
              buffers_.key_rows + (range.begin - key_begin_) / kPer<Cell> * padded_dim_, kNone,
              grad_q_ + (first_ + row) * padded_dim_, padded_dim_);
  }

  /// Cells of a group's P and dS; returns the rows of dS as the product with K reads them.
  const Cell* round_group(std::int64_t row, std::int64_t width) const {
    if constexpr (kIsPair<Cell>) {
      const std::int64_t at = row / 2 * kStride<T>;
      round_rows(buffers_.p + row * kStride<T>, width, buffers_.p_cells + at, nullptr);
      round_rows(buffers_.ds + row * kStride<T>, width, buffers_.ds_cells + at, buffers_.ds_rows);
      return buffers_.ds_rows;
    } else {
      return buffers_.ds + row * kStride<T>;
    }
  }

  void hide(std::int64_t row, KeyRange block, KeyRange range, std::int64_t width, T* p,
            T* ds) const {
    std::int64_t begin = width, end = width;  // rows past the last one see nothing
    if (row < count_) {
      begin = std::max(range.begin, view_.ranges.begin(batch_, first_ + row)) - block.begin;
      end = std::min(range.end, view_.ranges.end(batch_, first_ + row)) - block.begin;
    }
    for (std::int64_t i = 0; i < std::min(begin, width); ++i) p[i] = ds[i] = T(0);
    for (std::int64_t i = std::max<std::int64_t>(end, 0); i < width; ++i) p[i] = ds[i] = T(0);
  }

  /// Gradient of the relative scores of one query: sums of dS over kx, and over ky.
  void add_relative(std::int64_t row, KeyRange range, const T* ds) const {
    T* grad_h = buffers_.grad_h + row * plan_.stride_h;
    T* grad_w = buffers_.grad_w + row * plan_.stride_w;
    std::int64_t ky = range.begin / view_.grid_w, kx = range.begin % view_.grid_w;
    for (std::int64_t key = range.begin; key < range.end; ++ky, kx = 0) {
      const std::int64_t length = std::min(view_.grid_w - kx, range.end - key);
      Vector<T> sum{};
      for (std::int64_t i = 0; i < length; i += kLanes<T>) {
        const Vector<T> value = first_lanes<T>(load(ds + key - range.begin + i), length - i);
        sum += value;
        store(grad_w + kx + i, Vector<T>(load(grad_w + kx + i) + value));
      }
      grad_h[ky] += horizontal_sum<T>(sum);
      key += length;
    }
  }

  /// The tables' share of grad_q, and the tables' gradients. For one image row y all offsets
  /// y - ky are the same for its queries, so both are small products over (x, ky); likewise for a
  /// column x. Tables are walked backwards as ky grows.
  void add_table_gradients() const {
    const std::int64_t h = view_.grid_h, w = view_.grid_w, back = -padded_dim_;
    const std::int64_t from = key_begin_ / w, count = (key_end_ - 1) / w + 1 - from;
    const T* queries = buffers_.query_rows;
    const T* table = plan_.table_rows.template data<T>();
    for (std::int64_t y = 0; y < h; ++y) {
      const T* grad = buffers_.grad_h + y * w * plan_.stride_h + from;
      const std::int64_t tokens = y * w * padded_dim_, entry = (y - from + h - 1) * padded_dim_;
      add_product(w, count, grad, plan_.stride_h, 1, table + entry, back, grad_q_ + tokens,
                  padded_dim_, vectors_);
      add_product(count, w, grad, 1, plan_.stride_h, queries + tokens, padded_dim_,
                  grad_tables_ + entry, back, vectors_);
    }
    for (std::int64_t x = 0; x < w; ++x) {
      const T* grad = buffers_.grad_w + x * plan_.stride_w;
      const std::int64_t tokens = x * padded_dim_;
      const std::int64_t entry = (2 * h - 1 + x + w - 1) * padded_dim_;
      add_product(h, w, grad, w * plan_.stride_w, 1, table + entry, back, grad_q_ + tokens,
                  w * padded_dim_, vectors_);
      add_product(w, h, grad, 1, w * plan_.stride_w, queries + tokens, w * padded_dim_,
                  grad_tables_ + entry, back, vectors_);
    }
  }

  void write_rows(const T* from, std::int64_t rows, T factor, T* to, std::int64_t stride) const {
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < dim_; ++c)
        to[r * stride + c] = factor * from[r * padded_dim_ + c];
  }

  static constexpr const T* kNone = nullptr;  // no factor
  const BackwardPlan<T, Cell>& plan_;
  const AttentionView<T>& view_;
  const BackwardBuffers<T, Cell>& buffers_;
  T* const grad_tables_;
  T* const partial_;
  const std::int64_t dim_, padded_dim_, depth_, vectors_;
  const std::int64_t batch_, kv_head_, chunk_, key_begin_, key_end_;
  std::int64_t head_ = 0, first_ = 0, count_ = 0;
  T* grad_q_ = nullptr;
};

/// grad_q = sum of the chunks' parts, in order.
template <typename T, typename Cell>
void add_chunks(const BackwardPlan<T, Cell>& plan, const T* partial) {
  const AttentionView<T>& view = plan.view;
  const std::int64_t padded_dim = view.padded_dim(), heads = view.batch * view.heads;
  parallel_for(heads * view.rows, 256, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t head = i / view.rows, row = i % view.rows;
      const T* from = partial + head * plan.partial_size() + row * padded_dim;
      T* to = plan.backward.grad_q.at(head / view.heads, row, head % view.heads * view.dim);
      for (std::int64_t c = 0; c < view.dim; ++c) {
        T sum = from[c];
        for (std::int64_t chunk = 1; chunk < plan.chunks; ++chunk)
          sum += from[chunk * heads * plan.partial_size() + c];
        to[c] = sum;
      }
    }
  });
}

/// Table gradients = sum over the task groups, in order.
template <typename T, typename Cell>
void add_groups(const BackwardPlan<T, Cell>& plan, std::int64_t groups, const T* parts) {
  const AttentionView<T>& view = plan.view;
  const std::int64_t rows_h = 2 * view.grid_h - 1, dim = view.dim;
  for (std::int64_t row = 0; row < plan.tables.columns; ++row) {
    T* to = row < rows_h ? plan.backward.grad_table_h + row * dim
                         : plan.backward.grad_table_w + (row - rows_h) * dim;
    std::fill_n(to, dim, T(0));
    for (std::int64_t g = 0; g < groups; ++g)
      for (std::int64_t c = 0; c < dim; ++c)
        to[c] += parts[(g * plan.tables.columns + row) * view.padded_dim() + c];
  }
}

template <typename T, typename Cell>
void backward_with_cells(const AttentionView<T>& view, const AttentionBackwardView<T>& backward) {
  const BackwardPlan<T, Cell> plan(view, backward);
  const TaskRunner runner(view.work());
  BumpAllocator<T> size(nullptr);
  BackwardBuffers<T, Cell>(size, plan);
  const Tensor buffers = Tensor::empty({runner.slots(), size.used()}, kDTypeOf<T>);
  const std::int64_t groups = std::min(plan.units(), kTaskGroups);
  const std::int64_t table_size = plan.tables.columns * view.padded_dim();
  const Tensor tables = Tensor::zeros({groups, table_size}, kDTypeOf<T>);
  Tensor partial;
  if (plan.chunks > 1)
    partial =
        Tensor::empty({plan.chunks * view.batch * view.heads, plan.partial_size()}, kDTypeOf<T>);
  T* partial_data = partial.defined() ? partial.data<T>() : nullptr;

  runner.run(groups, [&](std::int64_t group) {
    BumpAllocator<T> memory(buffers.data<T>() + runner.current() * size.used());
    const BackwardBuffers<T, Cell> mine(memory, plan);
    for (std::int64_t unit = plan.units() * group / groups;
         unit < plan.units() * (group + 1) / groups; ++unit)
      BackwardUnit<T, Cell>(plan, mine, unit, tables.data<T>() + group * table_size, partial_data)
          .run();
  });
  if (partial.defined()) add_chunks(plan, static_cast<const T*>(partial_data));
  if (plan.tables.used()) add_groups(plan, groups, static_cast<const T*>(tables.data<T>()));
}

}  // namespace

template <typename T>
void attention_backward_cpu(const AttentionView<T>& view,
                            const AttentionBackwardView<T>& backward) {
  if constexpr (std::is_same_v<T, float>)
    if (view.rounded) return backward_with_cells<T, Bf16Pair>(view, backward);
  backward_with_cells<T, T>(view, backward);
}

template void attention_backward_cpu(const AttentionView<float>&,
                                     const AttentionBackwardView<float>&);
template void attention_backward_cpu(const AttentionView<double>&,
                                     const AttentionBackwardView<double>&);

}  // namespace lectern
