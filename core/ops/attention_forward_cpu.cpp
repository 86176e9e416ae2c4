// CPU forward of attention. A task owns up to kTileRows queries of one head and walks the keys in
// blocks; inside a block, groups of kRows queries go through three steps while their scores sit in
// the first-level cache: scores = Q K^T, online softmax, out = out * correction + P V. With
// bfloat16 cells Q, K, V and P are rounded as they are packed; scores and sums stay float.
#include "core/ops/attention_cpu.h"

#include <cmath>
#include <limits>

namespace lectern {

using namespace attention_tiles;

namespace {

template <typename T>
constexpr std::int64_t kBlock = 5 * kPanel<T>;  // keys a block; larger blocks rescale less often
template <typename T>
constexpr int kScoreStride = int(kBlock<T>) + 2 * kLanes<T>;  // room for fill_row's overshoot

/// Cells of a row of probabilities.
template <typename Cell>
constexpr int kProbabilityStride = kScoreStride<Sum<Cell>> / kPer<Cell>;

template <typename T, typename Cell>
struct ForwardBuffers {
  Cell *query, *probabilities;
  T *relative, *scores, *out, *sum, *max;

  ForwardBuffers(BumpAllocator<T>& memory, const AttentionView<T>& view,
                 const RelativeScores<T, Cell>& tables)
      : query(memory.template take_cells<Cell>(kTileRows * cells<Cell>(view.dim))),
        probabilities(
            memory.template take_cells<Cell>(kIsPair<Cell> ? kRows * kProbabilityStride<Cell> : 0)),
        relative(memory.take(tables.used() ? kTileRows * tables.stride : 0)),
        scores(memory.take(kRows * kScoreStride<T>)),
        out(memory.take(kTileRows * view.padded_dim())),
        sum(memory.take(kTileRows * kLanes<T>)),
        max(memory.take(kTileRows)) {}
};

/// Keys and values of one (batch, kv head): K^T in panels, V in padded rows.
template <typename T, typename Cell>
struct PackedKeys {
  Cell *keys, *values;

  PackedKeys(BumpAllocator<T>& memory, const AttentionView<T>& view)
      : keys(memory.template take_cells<Cell>(view.padded_keys() * cells<Cell>(view.dim))),
        values(memory.template take_cells<Cell>(cells<Cell>(view.keys) * view.padded_dim())) {}

  void fill(const AttentionView<T>& view, std::int64_t batch, std::int64_t kv_head) const {
    const std::int64_t column = kv_head * view.dim;
    pack_panels(view.k.at(batch, 0, column), view.keys, view.k.row_stride, view.dim,
                std::int64_t{kPanel<T>}, T(1), keys);
    pack_rows(view.v.at(batch, 0, column), view.keys, view.v.row_stride, view.dim, view.keys,
              view.padded_dim(), T(1), values);
  }
};

/// Largest of a row of scores.
template <typename T>
T max_of_row(const T* scores, std::int64_t vectors) {
  Vector<T> max = load(scores);
  for (std::int64_t v = 1; v < vectors; ++v) max = maximum<T>(max, load(scores + v * kLanes<T>));
  return horizontal_max<T>(max);
}

/// One row of scores -> probabilities relative to the running maximum. Returns the factor by which
/// what was summed before has to shrink.
template <typename T>
T softmax_row(T* scores, std::int64_t vectors, T max, T* running_max, T* running_sum) {
  const T before = *running_max;
  const T after = std::max(before, max);
  // A row that has seen no key yet: subtract 0, so that -infinity stays and no NaN arises.
  const T base = after == -std::numeric_limits<T>::infinity() ? T(0) : after;
  const T correction = exp2_vector<T>(splat(before - base))[0];
  Vector<T> sum = load(running_sum) * correction;
  for (std::int64_t v = 0; v < vectors; ++v) {
    const Vector<T> p = exp2_vector<T>(load(scores + v * kLanes<T>) - base);
    store(scores + v * kLanes<T>, p);
    sum += p;
  }
  store(running_sum, sum);
  *running_max = after;
  return correction;
}

/// A row of probabilities as cells.
inline void round_row(const float* row, std::int64_t vectors, Bf16Pair* out) {
  constexpr std::int64_t kL = kLanes<float>;
  for (std::int64_t v = 0; v < vectors; v += 2)
    store(out + v * kL / 2,
          round_along<Vector<Bf16Pair>>(load(row + v * kL), load(row + (v + 1) * kL)));
}

/// One task: `count` queries of one head from `first` on.
template <typename T, typename Cell>
class ForwardTile {
 public:
  ForwardTile(const AttentionView<T>& view, const RelativeScores<T, Cell>& tables,
              const PackedKeys<T, Cell>& packed, const ForwardBuffers<T, Cell>& buffers,
              std::int64_t batch, std::int64_t head, std::int64_t first)
      : view_(view),
        tables_(tables),
        packed_(packed),
        buffers_(buffers),
        batch_(batch),
        head_(head),
        first_(first),
        count_(std::min<std::int64_t>(kTileRows, view.rows - first)),
        depth_(cells<Cell>(view.dim)) {}

  void run(const StridedRows<T>& out, T* log_sum_exp) {
    const std::int64_t groups = (count_ + kRows - 1) / kRows;
    const std::int64_t dim = view_.dim, padded_dim = view_.padded_dim();
    pack_panels(view_.q.at(batch_, first_, head_ * dim), count_, view_.q.row_stride, dim,
                std::int64_t{kRows}, view_.score_factor(), buffers_.query);
    if (tables_.used()) tables_.compute(buffers_.query, groups, depth_, buffers_.relative);
    std::fill_n(buffers_.out, groups * kRows * padded_dim, T(0));
    std::fill_n(buffers_.sum, groups * kRows * kLanes<T>, T(0));
    std::fill_n(buffers_.max, groups * kRows, -std::numeric_limits<T>::infinity());

    const KeyRange range = union_of(view_.ranges, batch_, first_, count_);
    for (std::int64_t block = range.begin / kPanel<T> * kPanel<T>; block < range.end;
         block += kBlock<T>)
      for (std::int64_t g = 0; g < groups; ++g) visit(g, block);
    write(out, log_sum_exp);
  }

 private:
  void visit(std::int64_t group, std::int64_t block) {
    const std::int64_t row = group * kRows;
    const std::int64_t rows = std::min<std::int64_t>(kRows, count_ - row);
    KeyRange range = union_of(view_.ranges, batch_, first_ + row, rows);
    range.begin = std::max(block, range.begin / kPanel<T> * kPanel<T>);
    range.end = std::min(block + kBlock<T>, range.end);
    if (range.empty()) return;
    const std::int64_t vectors = (range.end - range.begin + kLanes<T> - 1) / kLanes<T>;

    T* scores = buffers_.scores;
    if (tables_.used())
      for (std::int64_t r = 0; r < rows; ++r)
        tables_.fill_row(buffers_.relative + (row + r) * tables_.stride, first_ + row + r,
                         range.begin, range.end, scores + r * kScoreStride<T>);
    score_panels(buffers_.query + row * depth_, packed_.keys + range.begin * depth_, depth_,
                 vectors, tables_.used(), scores, Constant<kScoreStride<T>>{});
    T max[kRows], correction[kRows];  // two loops, so that the rows' reductions overlap
    for (std::int64_t r = 0; r < kRows; ++r) {
      hide(std::min(row + r, count_ - 1), range, vectors, scores + r * kScoreStride<T>);
      max[r] = max_of_row(scores + r * kScoreStride<T>, vectors);
    }
    for (std::int64_t r = 0; r < kRows; ++r)
      correction[r] = softmax_row(scores + r * kScoreStride<T>, vectors, max[r],
                                  buffers_.max + row + r, buffers_.sum + (row + r) * kLanes<T>);
    add_tiles(cells<Cell>(range.end - range.begin), probabilities(vectors),
              Constant<kProbabilityStride<Cell>>{}, Constant<1>{},
              packed_.values + range.begin / kPer<Cell> * view_.padded_dim(), correction,
              buffers_.out + row * view_.padded_dim(), view_.padded_dim());
  }

  /// What the softmax left in `scores`, as the next product reads it.
  const Cell* probabilities(std::int64_t vectors) const {
    if constexpr (kIsPair<Cell>) {
      for (int r = 0; r < kRows; ++r)
        round_row(buffers_.scores + r * kScoreStride<T>, vectors,
                  buffers_.probabilities + r * kProbabilityStride<Cell>);
      return buffers_.probabilities;
    } else {
      return buffers_.scores;
    }
  }

  /// Sets scores outside the row's own interval to -infinity.
  void hide(std::int64_t row, KeyRange range, std::int64_t vectors, T* line) const {
    constexpr T kHidden = -std::numeric_limits<T>::infinity();
    const std::int64_t size = vectors * kLanes<T>;
    const std::int64_t begin = view_.ranges.begin(batch_, first_ + row) - range.begin;
    const std::int64_t end = view_.ranges.end(batch_, first_ + row) - range.begin;
    for (std::int64_t i = 0; i < std::min(begin, size); ++i) line[i] = kHidden;
    for (std::int64_t i = std::max<std::int64_t>(end, 0); i < size; ++i) line[i] = kHidden;
  }

  void write(const StridedRows<T>& out, T* log_sum_exp) const {
    for (std::int64_t r = 0; r < count_; ++r) {
      const T sum = horizontal_sum<T>(load(buffers_.sum + r * kLanes<T>));
      const T* from = buffers_.out + r * view_.padded_dim();
      T* to = out.at(batch_, first_ + r, head_ * view_.dim);
      const T factor = T(1) / sum;
      for (std::int64_t c = 0; c < view_.dim; ++c) to[c] = from[c] * factor;
      if (log_sum_exp != nullptr)
        log_sum_exp[(batch_ * view_.heads + head_) * view_.rows + first_ + r] =
            (buffers_.max[r] + std::log2(sum)) * T(0.69314718055994530942);
    }
  }

  const AttentionView<T>& view_;
  const RelativeScores<T, Cell>& tables_;
  const PackedKeys<T, Cell>& packed_;
  const ForwardBuffers<T, Cell>& buffers_;
  const std::int64_t batch_, head_, first_, count_, depth_;
};

}  // namespace

template <typename T, typename Cell>
RelativeScores<T, Cell>::RelativeScores(const AttentionView<T>& view)
    : grid_h(view.grid_h), grid_w(view.grid_w) {
  if (!view.relative()) return;
  const std::int64_t rows_h = 2 * grid_h - 1, rows_w = 2 * grid_w - 1, dim = view.dim;
  columns = rows_h + rows_w;
  stride = round_up(columns, kPanel<T>) + kLanes<T>;
  const Tensor reversed = Tensor::empty({columns, dim}, kDTypeOf<T>);
  T* rows = reversed.data<T>();
  for (std::int64_t i = 0; i < rows_h; ++i)
    std::copy_n(view.table_h + (rows_h - 1 - i) * dim, dim, rows + i * dim);
  for (std::int64_t i = 0; i < rows_w; ++i)
    std::copy_n(view.table_w + (rows_w - 1 - i) * dim, dim, rows + (rows_h + i) * dim);
  // As many bytes as numbers of T: a Cell has the size of one.
  panels = Tensor::empty({round_up(columns, kPanel<T>), cells<Cell>(dim)}, kDTypeOf<T>);
  // Packed queries carry `scale`, which the tables' products must not have.
  pack_panels(rows, columns, dim, dim, std::int64_t{kPanel<T>}, static_cast<T>(1 / view.scale),
              static_cast<Cell*>(panels.raw()));
}

template <typename T, typename Cell>
void RelativeScores<T, Cell>::compute(const Cell* query, std::int64_t row_groups,
                                      std::int64_t depth, T* scores) const {
  const std::int64_t vectors = (columns + kLanes<T> - 1) / kLanes<T>;
  for (std::int64_t g = 0; g < row_groups; ++g)
    score_panels(query + g * kRows * depth, static_cast<const Cell*>(panels.raw()), depth, vectors,
                 false, scores + g * kRows * stride, stride);
}

template <typename T, typename Cell>
void RelativeScores<T, Cell>::fill_row(const T* relative, std::int64_t row, std::int64_t begin,
                                       std::int64_t end, T* out) const {
  const std::int64_t y = row / grid_w, x = row % grid_w;
  const T* along_h = relative + grid_h - 1 - y;
  const T* along_w = relative + 2 * grid_h - 1 + grid_w - 1 - x;
  std::int64_t ky = begin / grid_w, kx = begin % grid_w;
  // Vectors run past the end of a grid row; the next row overwrites what they left.
  for (std::int64_t key = begin; key < end; ++ky, kx = 0) {
    const std::int64_t length = std::min(grid_w - kx, end - key);
    for (std::int64_t i = 0; i < length; i += kLanes<T>)
      store(out + key - begin + i, Vector<T>(load(along_w + kx + i) + along_h[ky]));
    key += length;
  }
}

namespace {

template <typename T, typename Cell>
void forward_with_cells(const AttentionView<T>& view, const StridedRows<T>& out, T* log_sum_exp) {
  const RelativeScores<T, Cell> tables(view);
  const TaskRunner runner(view.work());
  const std::int64_t units = view.batch * view.kv_heads;
  const std::int64_t tiles = (view.rows + kTileRows - 1) / kTileRows;
  // Enough (batch, kv head) pairs: one task each, which keeps its keys in its own cache. Else all
  // keys are packed first and the tiles are shared out. The arithmetic is the same.
  const bool by_unit = units % runner.slots() == 0 || units >= 8 * runner.slots();

  BumpAllocator<T> keys_size(nullptr), buffers_size(nullptr);
  PackedKeys<T, Cell>(keys_size, view);
  ForwardBuffers<T, Cell>(buffers_size, view, tables);
  const Tensor keys =
      Tensor::empty({by_unit ? runner.slots() : units, keys_size.used()}, kDTypeOf<T>);
  const Tensor buffers = Tensor::empty({runner.slots(), buffers_size.used()}, kDTypeOf<T>);

  const auto packed_keys = [&](std::int64_t slot) {
    BumpAllocator<T> memory(keys.data<T>() + slot * keys_size.used());
    return PackedKeys<T, Cell>(memory, view);
  };
  const auto run_tile = [&](std::int64_t unit, const PackedKeys<T, Cell>& packed,
                            std::int64_t in_group, std::int64_t tile) {
    BumpAllocator<T> memory(buffers.data<T>() + runner.current() * buffers_size.used());
    const ForwardBuffers<T, Cell> mine(memory, view, tables);
    const std::int64_t head = unit % view.kv_heads * view.group() + in_group;
    ForwardTile<T, Cell>(view, tables, packed, mine, unit / view.kv_heads, head, tile * kTileRows)
        .run(out, log_sum_exp);
  };
  if (by_unit) {
    runner.run(units, [&](std::int64_t unit) {
      const PackedKeys<T, Cell> packed = packed_keys(runner.current());
      packed.fill(view, unit / view.kv_heads, unit % view.kv_heads);
      for (std::int64_t h = 0; h < view.group(); ++h)
        for (std::int64_t tile = 0; tile < tiles; ++tile) run_tile(unit, packed, h, tile);
    });
    return;
  }
  runner.run(units, [&](std::int64_t unit) {
    packed_keys(unit).fill(view, unit / view.kv_heads, unit % view.kv_heads);
  });
  runner.run(units * view.group() * tiles, [&](std::int64_t task) {
    const std::int64_t unit = task / (view.group() * tiles);
    run_tile(unit, packed_keys(unit), task / tiles % view.group(), task % tiles);
  });
}

}  // namespace

template <typename T>
void attention_forward_cpu(const AttentionView<T>& view, const StridedRows<T>& out,
                           T* log_sum_exp) {
  if constexpr (std::is_same_v<T, float>)
    if (view.rounded) return forward_with_cells<T, Bf16Pair>(view, out, log_sum_exp);
  forward_with_cells<T, T>(view, out, log_sum_exp);
}

template struct RelativeScores<float, float>;
template struct RelativeScores<float, Bf16Pair>;
template struct RelativeScores<double, double>;
template void attention_forward_cpu(const AttentionView<float>&, const StridedRows<float>&, float*);
template void attention_forward_cpu(const AttentionView<double>&, const StridedRows<double>&,
                                    double*);

}  // namespace lectern
