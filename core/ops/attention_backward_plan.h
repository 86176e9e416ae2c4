// Sizes and scratch memory of the CPU backward of attention. Private to this room.
#pragma once

#include "core/ops/attention_cpu.h"

namespace lectern::attention_plan {

using namespace attention_tiles;

template <typename T>
inline constexpr std::int64_t kBlock = 2 * kPanel<T>;
template <typename T>
inline constexpr int kStride =
    int(kBlock<T>) + kLanes<T>;                   // of P and dS; an odd number of cache lines
inline constexpr std::int64_t kWantedUnits = 16;  // split keys until there are as many tasks
inline constexpr std::int64_t kTaskGroups = 256;  // at most; each sums table gradients apart

/// Numbers that a product reads as cells of pairs; nothing where cells are the numbers themselves.
template <typename Cell>
constexpr std::int64_t if_pairs(std::int64_t count) {
  return kIsPair<Cell> ? count : 0;
}

/// Sizes that all units share.
template <typename T, typename Cell>
struct BackwardPlan {
  const AttentionView<T>& view;
  const AttentionBackwardView<T>& backward;
  RelativeScores<T, Cell> tables;
  Tensor table_rows;  // [2 grid_h - 1 + 2 grid_w - 1, padded dim], tables as they are
  std::int64_t chunks = 1, chunk_keys = 0;
  std::int64_t padded_rows = 0;             // of queries
  std::int64_t stride_h = 0, stride_w = 0;  // of the gradients of relative scores
  std::int64_t relative_rows = 0;           // with room for a group of rows past the end

  BackwardPlan(const AttentionView<T>& view_, const AttentionBackwardView<T>& backward_)
      : view(view_), backward(backward_), tables(view_) {
    const std::int64_t pairs = view.batch * view.kv_heads;
    // With tables every chunk repeats their share of the work, so chunks are larger.
    const std::int64_t shortest = tables.used() ? 1024 : 256;
    chunks = std::clamp<std::int64_t>((kWantedUnits + pairs - 1) / pairs, 1,
                                      (view.keys + shortest - 1) / shortest);
    chunk_keys = round_up((view.keys + chunks - 1) / chunks, kPanel<T>);
    chunks = (view.keys + chunk_keys - 1) / chunk_keys;
    padded_rows = round_up(view.rows, kTileRows);
    if (!tables.used()) return;
    stride_h = round_up(view.grid_h, kLanes<T>) + kLanes<T>;
    stride_w = round_up(view.grid_w, kLanes<T>) + kLanes<T>;
    relative_rows = padded_rows + kRows * view.grid_w;
    const std::int64_t rows_h = 2 * view.grid_h - 1, rows_w = 2 * view.grid_w - 1;
    table_rows = Tensor::empty({rows_h + rows_w, view.padded_dim()}, kDTypeOf<T>);
    T* rows = table_rows.template data<T>();
    pack_rows(view.table_h, rows_h, view.dim, view.dim, rows_h, view.padded_dim(), T(1), rows);
    pack_rows(view.table_w, rows_w, view.dim, view.dim, rows_w, view.padded_dim(), T(1),
              rows + rows_h * view.padded_dim());
  }
  std::int64_t units() const { return view.batch * view.kv_heads * chunks; }
  std::int64_t partial_size() const { return padded_rows * view.padded_dim(); }
};

template <typename T, typename Cell>
struct BackwardBuffers {
  Cell *keys, *values, *key_rows;              // of the chunk: packed, packed, rows
  T *grad_k, *grad_v;                          // of the chunk
  T *query_rows, *grad_q, *grad_h, *grad_w;    // of a head
  Cell* query_cells;                           // of a head; query_rows where Cell is T
  Cell *query, *grad_out, *grad_out_rows;      // of a tile
  Cell *p_cells, *ds_cells, *ds_rows;          // of a tile, and of a group; pairs only
  T *relative, *p, *ds, *log_sum_exp, *delta;  // of a tile

  BackwardBuffers(Carver<T>& carver, const BackwardPlan<T, Cell>& plan) {
    const std::int64_t dim = plan.view.dim, padded_dim = plan.view.padded_dim();
    const std::int64_t depth = cells<Cell>(dim);
    const auto take_cells = [&](std::int64_t count) {
      return carver.template take_cells<Cell>(count);
    };
    keys = take_cells(plan.chunk_keys * depth);
    values = take_cells(plan.chunk_keys * depth);
    key_rows = take_cells(cells<Cell>(plan.chunk_keys) * padded_dim);
    grad_k = carver.take((plan.chunk_keys + kRows) * padded_dim);
    grad_v = carver.take((plan.chunk_keys + kRows) * padded_dim);
    query_rows =
        carver.take(kIsPair<Cell> && !plan.tables.used() ? 0 : plan.padded_rows * padded_dim);
    query_cells = take_cells(if_pairs<Cell>(cells<Cell>(plan.padded_rows) * padded_dim));
    if constexpr (!kIsPair<Cell>) query_cells = query_rows;
    grad_q = carver.take(plan.chunks == 1 ? plan.partial_size() : 0);
    grad_h = carver.take(plan.relative_rows * plan.stride_h);
    grad_w = carver.take(plan.relative_rows * plan.stride_w);
    query = take_cells(kTileRows * depth);
    grad_out = take_cells(kTileRows * depth);
    grad_out_rows = take_cells(cells<Cell>(kTileRows) * padded_dim);
    p_cells = take_cells(if_pairs<Cell>(cells<Cell>(kTileRows) * kStride<T>));
    ds_cells = take_cells(if_pairs<Cell>(cells<Cell>(kTileRows) * kStride<T>));
    ds_rows = take_cells(if_pairs<Cell>(kRows * kStride<T>));
    relative = carver.take(kTileRows * plan.tables.stride);
    p = carver.take(kTileRows * kStride<T>);
    ds = carver.take(kTileRows * kStride<T>);
    if constexpr (!kIsPair<Cell>) {
      p_cells = p;
      ds_cells = ds;
    }
    log_sum_exp = carver.take(kTileRows);
    delta = carver.take(kTileRows);
  }
};

}  // namespace lectern::attention_plan
