// What the attention kernels share: the problem without Tensors, and the tiles that a block works
// on. Private to this room.
#pragma once

#include "core/ops/attention.h"
#include "cuda/collective.h"
#include "cuda/launch.h"
#include "cuda/tiles.h"

#include <cstdint>

namespace lectern::cuda {

inline constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

/// Rows of q, k, v or an output: element (b, i, h, d) at begin + b * batch_step + i * row_step +
/// h * dim + d.
template <typename T>
struct HeadRows {
  Span<T> data;
  std::int64_t begin = 0, batch_step = 0, row_step = 0;

  __device__ std::int64_t at(std::int64_t batch, std::int64_t row, std::int64_t head,
                             std::int64_t dim) const {
    return begin + batch * batch_step + row * row_step + head * dim;
  }
};

template <typename T>
struct AttentionProblem {
  HeadRows<const T> q, k, v;
  std::int64_t rows = 0, keys = 0;
  int heads = 1, kv_heads = 1, dim = 1;
  float scale = 1;
  MaskKind mask = MaskKind::full;
  std::int64_t prefix = 0;
  Span<const std::int32_t> segment_start;  // [B, rows]; may not exist
  Span<const std::int32_t> past;           // [B]; cached attention only
  // [B, H, rows, grid_h + grid_w]: q . table_h for every grid row of keys, then q . table_w for
  // every grid column, times log2(e); does not exist without relative positions.
  Span<const float> relative;
  int grid_h = 0, grid_w = 0;
  float inverse_grid_w = 0;
  bool packed = false;  // 16-byte copies are allowed everywhere

  __device__ std::int64_t key_begin(std::int64_t batch, std::int64_t row) const {
    return segment_start.exists() ? segment_start[batch * rows + row] : 0;
  }
  __device__ std::int64_t key_end(std::int64_t batch, std::int64_t row) const {
    if (mask == MaskKind::full) return keys;
    if (mask == MaskKind::prefix_causal && row < prefix) return prefix;
    return row + 1 + (past.exists() ? past[batch] : 0);
  }
};

/// Sizes of a block's tiles; f32 tiles are smaller, because their elements are twice as large.
template <typename T, int kDim>
struct AttentionTiles {
  static constexpr int kRows = sizeof(T) == 2 ? 64 : 32;
  static constexpr int kKeys = kRows;
  // Of backward: strips of rows by halves of the columns.
  static constexpr int kThreads = kRows / 16 * 2 * kWarp;
};

template <typename T>
__device__ inline Rows<T> head_rows(const HeadRows<const T>& x, std::int64_t batch,
                                    std::int64_t row, std::int64_t head, int dim) {
  return {Span<const T>(x.data), x.at(batch, row, head, dim), x.row_step};
}

/// First and last key that the rows [first, first + count) of a block see: smallest begin, largest
/// end. `scratch` holds 2 floats a warp; key numbers are exact in float below 2^24.
template <typename T>
__device__ inline void key_range(const AttentionProblem<T>& p, std::int64_t batch,
                                 std::int64_t first, std::int64_t count,
                                 const Shared<float>& scratch, std::int64_t& begin,
                                 std::int64_t& end) {
  float low = -static_cast<float>(p.keys), high = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    low = fmaxf(low, -static_cast<float>(p.key_begin(batch, first + i)));
    high = fmaxf(high, static_cast<float>(p.key_end(batch, first + i)));
  }
  begin = static_cast<std::int64_t>(-block_max(scratch, low));
  end = static_cast<std::int64_t>(block_max(scratch, high));
}

/// One score in units of log 2, -infinity where the row does not see the key. `relative(i)` is
/// entry i of the row's relative scores.
template <typename T, typename F>
__device__ inline float finish_score(const AttentionProblem<T>& p, float product, std::int64_t key,
                                     std::int64_t begin, std::int64_t end, const F& relative) {
  if (key < begin || key >= end) return -INFINITY;
  float score = product * (p.scale * kLog2E);
  if (p.relative.exists()) {
    // Division by a reciprocal: half a cell keeps it clear of whole numbers below 2^21 keys.
    const int cell = static_cast<int>(key);
    const int y = static_cast<int>((static_cast<float>(cell) + 0.5f) * p.inverse_grid_w);
    score += relative(y) + relative(p.grid_h + cell - y * p.grid_w);
  }
  return score;
}

/// Calls f.template operator()<T, kDim>() with the storage type and the padded head size.
template <typename F>
void dispatch_attention(DType dtype, std::int64_t dim, F&& f) {
  if (dim > 128)
    fail<ConfigError>(fmt::format("attention: head_dim must be at most 128 on CUDA, got {}", dim));
  dispatch_storage(dtype, "attention", [&]<typename T>() {
    if (dim <= 32)
      f.template operator()<T, 32>();
    else if (dim <= 64)
      f.template operator()<T, 64>();
    else
      f.template operator()<T, 128>();
  });
}

/// Forward of any problem: out and, where it exists, log_sum_exp [B, H, rows].
template <typename T>
struct AttentionForward {
  AttentionProblem<T> problem;
  HeadRows<T> out;
  Span<float> log_sum_exp;
};
template <typename T, int kDim>
void launch_attention_forward(const AttentionForward<T>& arguments, std::int64_t batch);

template <typename T>
struct AttentionBackward {
  AttentionProblem<T> problem;
  HeadRows<const T> grad_out, out;
  Span<const float> log_sum_exp;  // [B, H, rows]
  Span<float> delta;              // [B, H, rows]: sum of grad_out * out, filled first
  HeadRows<T> grad_q, grad_k, grad_v;
  // With relative positions: the tables [2 grid - 1, dim], and the gradient that reaches each row's
  // relative scores [B, H, rows, grid_h + grid_w], from which the gradients of the tables are made.
  Span<const float> table_h, table_w;
  Span<float> grad_relative;
};
template <typename T, int kDim>
void launch_attention_backward(const AttentionBackward<T>& arguments, std::int64_t batch);

/// Fills problem.relative's memory from the tables.
template <typename T, int kDim>
void launch_relative_scores(const AttentionProblem<T>& problem, const Span<const float>& table_h,
                            const Span<const float>& table_w, const Span<float>& relative,
                            std::int64_t batch);

/// Partial sums [parts, (2 grid_h - 1) + (2 grid_w - 1), dim] of the tables' gradients, from
/// grad_relative.
template <typename T, int kDim>
void launch_table_gradients(const AttentionBackward<T>& arguments, std::int64_t batch,
                            std::int64_t parts, const Span<float>& partial);

}  // namespace lectern::cuda
