// What the CPU attention kernels share: the problem without Tensors, and the packed forms of its
// relative-position tables. Private to this room.
#pragma once

#include "core/ops/attention.h"
#include "core/ops/attention_packing.h"
#include "core/parallel.h"

#include <algorithm>
#include <cstdint>

namespace lectern {

/// Rows of a [B, T, columns] tensor, from one column block on.
template <typename T>
struct StridedRows {
  T* data = nullptr;
  std::int64_t batch_stride = 0;
  std::int64_t row_stride = 0;

  T* at(std::int64_t batch, std::int64_t row, std::int64_t column) const {
    return data + batch * batch_stride + row * row_stride + column;
  }
};

/// The keys [begin, end) that each query row sees.
struct KeyRanges {
  MaskKind mask = MaskKind::full;
  std::int64_t rows = 0;
  std::int64_t keys = 0;
  std::int64_t prefix = 0;
  const std::int32_t* segment_start = nullptr;  ///< [B, rows]
  const std::int32_t* past = nullptr;           ///< [B]; cached attention

  std::int64_t begin(std::int64_t batch, std::int64_t row) const {
    return segment_start == nullptr ? 0 : segment_start[batch * rows + row];
  }
  std::int64_t end(std::int64_t batch, std::int64_t row) const {
    if (mask == MaskKind::full) return keys;
    if (mask == MaskKind::prefix_causal && row < prefix) return prefix;
    return row + 1 + (past == nullptr ? 0 : past[batch]);
  }
};

struct KeyRange {
  std::int64_t begin = 0, end = 0;
  bool empty() const { return begin >= end; }
};

/// Smallest interval that holds the keys of all rows first..first + count - 1.
inline KeyRange union_of(const KeyRanges& ranges, std::int64_t batch, std::int64_t first,
                         std::int64_t count) {
  KeyRange range{ranges.keys, 0};
  for (std::int64_t i = first; i < first + count; ++i) {
    range.begin = std::min(range.begin, ranges.begin(batch, i));
    range.end = std::max(range.end, ranges.end(batch, i));
  }
  return range;
}

template <typename T>
struct AttentionView {
  StridedRows<const T> q, k, v;
  std::int64_t batch = 0, rows = 0, keys = 0;
  std::int64_t heads = 0, kv_heads = 0, dim = 0;
  double scale = 1;
  KeyRanges ranges;
  const T* table_h = nullptr;  ///< [2 grid_h - 1, dim] or null
  const T* table_w = nullptr;
  std::int64_t grid_h = 0, grid_w = 0;
  bool rounded = false;  ///< products read bfloat16; float only

  bool relative() const { return table_h != nullptr; }
  std::int64_t group() const { return heads / kv_heads; }
  std::int64_t padded_dim() const {
    return attention_tiles::round_up(dim, attention_tiles::kLanes<T>);
  }
  /// Scores are kept in units of log 2: scale * log2(e).
  T score_factor() const { return static_cast<T>(scale * 1.4426950408889634074); }
  /// Multiplications of one product of queries with all keys, the masks aside.
  std::int64_t work() const { return batch * heads * rows * keys * dim; }
  std::int64_t padded_keys() const {
    return attention_tiles::round_up(keys, attention_tiles::kPanel<T>);
  }
};

/// q . table of every table row, for the rows of one query tile. Both tables, reversed, are packed
/// like keys: column grid_h - 1 - y + ky is q . table_h[y - ky + grid_h - 1], and the columns of
/// table_w follow at 2 grid_h - 1. So the scores of one row over ky (or kx) lie side by side.
template <typename T, typename Cell>
struct RelativeScores {
  std::int64_t grid_h = 0, grid_w = 0;
  std::int64_t columns = 0;  ///< 2 grid_h - 1 + 2 grid_w - 1
  std::int64_t stride = 0;   ///< of a row of scores, with room to read a vector past the end
  Tensor panels;             ///< the packed tables, Cells; undefined without relative positions

  explicit RelativeScores(const AttentionView<T>& view);
  bool used() const { return panels.defined(); }
  /// query: packed [kTileRows / kRows][depth][kRows], scaled; scores [kTileRows][stride].
  void compute(const Cell* query, std::int64_t row_groups, std::int64_t depth, T* scores) const;
  /// Writes the relative scores of query row `row` (its tile row of `scores` at `relative`) for
  /// keys begin..end-1 to `out`; up to a vector past the end is overwritten.
  void fill_row(const T* relative, std::int64_t row, std::int64_t begin, std::int64_t end,
                T* out) const;
};

/// score_panel over `vectors` vectors of keys.
template <typename Cell, typename Stride>
inline void score_panels(const Cell* query, const Cell* panels, std::int64_t depth,
                         std::int64_t vectors, bool accumulate, attention_tiles::Sum<Cell>* out,
                         Stride stride) {
  using namespace attention_tiles;
  for (std::int64_t v = 0; v < vectors; v += kColumns) {
    const Cell* panel = panels + v * kLanes<Cell> * depth;
    Sum<Cell>* to = out + v * kLanes<Cell>;
    if (vectors - v >= 3)
      score_panel<Cell, 3>(query, panel, depth, accumulate, to, stride);
    else if (vectors - v == 2)
      score_panel<Cell, 2>(query, panel, depth, accumulate, to, stride);
    else
      score_panel<Cell, 1>(query, panel, depth, accumulate, to, stride);
  }
}

/// Runs tasks on the threads that a kernel called here may use: one inside someone else's parallel
/// region, or when the whole work (in multiplications) is not worth waking the others.
class TaskRunner {
 public:
  explicit TaskRunner(std::int64_t work)
      : alone_(omp_in_parallel() != 0 || work < (1 << 16)), slots_(alone_ ? 1 : thread_count()) {}
  /// Tasks that can run at once.
  std::int64_t slots() const { return slots_; }
  /// Which of the slots() this thread is.
  std::int64_t current() const { return alone_ ? 0 : omp_get_thread_num(); }
  template <typename F>
  void run(std::int64_t tasks, F&& f) const {
    if (!alone_) return parallel_tasks(tasks, f);
    for (std::int64_t i = 0; i < tasks; ++i) f(i);
  }

 private:
  bool alone_;
  std::int64_t slots_;
};

template <typename T>
void attention_forward_cpu(const AttentionView<T>& view, const StridedRows<T>& out, T* log_sum_exp);

/// Few queries a sequence (generation): reads keys and values in place, once a group. They are
/// given apart from `view` (whose k and v are not used), because they may be stored as bf16.
template <typename T, typename Stored>
void attention_decode_cpu(const AttentionView<T>& view, const StridedRows<const Stored>& keys,
                          const StridedRows<const Stored>& values, const StridedRows<T>& out);

template <typename T>
struct AttentionBackwardView {
  StridedRows<const T> grad_out, out;
  const T* log_sum_exp = nullptr;  ///< [B, H, rows]
  StridedRows<T> grad_q, grad_k, grad_v;
  T* grad_table_h = nullptr;  ///< [2 grid_h - 1, dim] or null
  T* grad_table_w = nullptr;
};

template <typename T>
void attention_backward_cpu(const AttentionView<T>& view, const AttentionBackwardView<T>& backward);

}  // namespace lectern
