// Register tiles of the residual-stream kernels: products of a few token rows with a few rows of
// the projection, and the two products of its gradient. Private to this room.
//
// The projection is packed into panels of kPanelColumns columns of one stream, all rows of a panel
// side by side and padded with zeros: [panel][padded row][kPanelColumns]. Rows of the projection
// itself are multiples of 4 KiB apart at usual widths, so that they would evict each other from L1.
#pragma once

#include "core/cpu/simd.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace lectern::stream_tiles {

constexpr int kPanelColumns = 256;
/// Projection rows are padded to a multiple of both tile heights below.
constexpr int kProductRows = 6;
constexpr int kGradientRows = 8;
constexpr int kTokens = 4;

struct PanelLayout {
  std::int64_t width = 0;    ///< C
  std::int64_t streams = 0;  ///< of the projection: n, or 1 when every stream has the same
  int rows = 0;              ///< of the projection
  int padded_rows = 0;

  PanelLayout(std::int64_t width, std::int64_t streams, int rows)
      : width(width), streams(streams), rows(rows), padded_rows((rows + 23) / 24 * 24) {}
  std::int64_t panels_per_stream() const { return (width + kPanelColumns - 1) / kPanelColumns; }
  std::int64_t panels() const { return streams * panels_per_stream(); }
  std::int64_t panel_size() const { return std::int64_t{padded_rows} * kPanelColumns; }
  std::int64_t size() const { return panels() * panel_size(); }
  std::int64_t first_panel(std::int64_t stream) const {
    return streams == 1 ? 0 : stream * panels_per_stream();
  }
  /// Columns of the streams that panel `panel` of its stream holds.
  int columns(std::int64_t panel) const {
    return static_cast<int>(std::min<std::int64_t>(kPanelColumns, width - panel * kPanelColumns));
  }
};

/// fn [rows, streams * width] -> panels [size()]; the reverse with `unpack`.
template <typename T>
void pack_panel(const PanelLayout& layout, const T* fn, std::int64_t stream, std::int64_t panel,
                T* out) {
  const int columns = layout.columns(panel);
  std::fill_n(out, layout.panel_size(), T(0));
  for (int row = 0; row < layout.rows; ++row)
    std::copy_n(fn + (row * layout.streams + stream) * layout.width + panel * kPanelColumns,
                columns, out + row * kPanelColumns);
}
template <typename T>
void unpack_panel(const PanelLayout& layout, const T* panel_values, std::int64_t stream,
                  std::int64_t panel, T* fn) {
  for (int row = 0; row < layout.rows; ++row)
    std::copy_n(panel_values + row * kPanelColumns, layout.columns(panel),
                fn + (row * layout.streams + stream) * layout.width + panel * kPanelColumns);
}

/// sums[t][r] += x[t] . panel row r over whole registers of `columns` columns, lane by lane, for
/// kTokens token rows and kProductRows panel rows. `stride` is elements between rows of sums.
template <typename T>
inline void add_products(const T* const (&x)[kTokens], const T* panel, int columns, Lanes<T>* sums,
                         std::int64_t stride) {
  using V = Lanes<T>;
  V total[kTokens][kProductRows];
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 8
    for (int r = 0; r < kProductRows; ++r) total[t][r] = sums[t * stride + r];
  for (int c = 0; c + V::kCount <= columns; c += V::kCount) {
    V value[kTokens];
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) value[t] = V::load(x[t] + c);
#pragma GCC unroll 8
    for (int r = 0; r < kProductRows; ++r) {
      const V weight = V::load(panel + r * kPanelColumns + c);
#pragma GCC unroll 8
      for (int t = 0; t < kTokens; ++t) total[t][r] += value[t] * weight;
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 8
    for (int r = 0; r < kProductRows; ++r) sums[t * stride + r] = total[t][r];
}

/// The columns behind the last whole register: apart, so that they do not cost the loop above its
/// registers.
template <typename T>
void add_product_tail(const T* const (&x)[kTokens], const T* panel, int columns, Lanes<T>* sums,
                      std::int64_t stride) {
  using V = Lanes<T>;
  const int c = columns / V::kCount * V::kCount;
  for (int t = 0; t < kTokens && c < columns; ++t) {
    const V value = V::load(x[t] + c, columns - c);
    for (int r = 0; r < kProductRows; ++r)
      sums[t * stride + r] += value * V::load(panel + r * kPanelColumns + c);
  }
}

/// grad_panel[r][c] += sum_t weight[t][r] x[t][c] for kGradientRows rows and VC registers of
/// columns; `tail` < kCount columns only when VC = 1.
template <int VC, typename T>
inline void add_outer(const T* const* x, int tokens, const T* weight, std::int64_t weight_stride,
                      int column, int tail, T* grad_panel) {
  using V = Lanes<T>;
  V total[kGradientRows][VC];
#pragma GCC unroll 8
  for (int r = 0; r < kGradientRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < VC; ++v)
      total[r][v] = V::load(grad_panel + r * kPanelColumns + column + v * V::kCount);
  for (int t = 0; t < tokens; ++t) {
    V value[VC];
#pragma GCC unroll 4
    for (int v = 0; v < VC; ++v)
      value[v] = VC == 1 && tail < V::kCount ? V::load(x[t] + column, tail)
                                             : V::load(x[t] + column + v * V::kCount);
#pragma GCC unroll 8
    for (int r = 0; r < kGradientRows; ++r) {
      const V w(weight[t * weight_stride + r]);
#pragma GCC unroll 4
      for (int v = 0; v < VC; ++v) total[r][v] += w * value[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kGradientRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < VC; ++v)
      total[r][v].store(grad_panel + r * kPanelColumns + column + v * V::kCount);
}

/// sums[a][b] = left[a] . right[b] over `columns` columns.
template <int A, int B, typename T>
inline void dot_products(const T* const* left, const T* const* right, std::int64_t columns, T* sums,
                         int stride) {
  using V = Lanes<T>;
  V total[A][B];
#pragma GCC unroll 16
  for (int a = 0; a < A; ++a)
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) total[a][b] = V(T(0));
  const auto add = [&](auto load, std::int64_t c) {
    V value[B];
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) value[b] = load(right[b] + c);
#pragma GCC unroll 16
    for (int a = 0; a < A; ++a) {
      const V factor = load(left[a] + c);
#pragma GCC unroll 8
      for (int b = 0; b < B; ++b) total[a][b] += factor * value[b];
    }
  };
  std::int64_t c = 0;
  for (; c + V::kCount <= columns; c += V::kCount)
    add([](const T* from) { return V::load(from); }, c);
  if (c < columns)
    add([=](const T* from) { return V::load(from, static_cast<int>(columns - c)); }, c);
#pragma GCC unroll 16
  for (int a = 0; a < A; ++a)
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) sums[a * stride + b] = total[a][b].sum();
}

}  // namespace lectern::stream_tiles
