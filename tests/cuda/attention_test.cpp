// Attention against its CPU twin: four masks, grouped heads, ragged tiles, relative positions,
// caches.
#include "core/ops/attention.h"

#include "tests/cuda/check_cuda.h"

#include <limits>

namespace lectern {
namespace {

using testing::Both;
using testing::both;
using testing::gpu;
using testing::kStorageTypes;
using testing::matches;
using testing::random_both;
using testing::throws_with;

struct Case {
  std::int64_t batch, tokens, heads, kv_heads, dim;
  MaskKind mask = MaskKind::full;
  std::int64_t prefix = 0;
  bool segments = false;
  std::int64_t grid_h = 0, grid_w = 0;
};

std::string describe(const Case& c, DType dtype) {
  return fmt::format("{} B{} T{} H{} G{} D{} mask {} prefix {} segments {} grid {}x{}",
                     name_of(dtype), c.batch, c.tokens, c.heads, c.kv_heads, c.dim,
                     static_cast<int>(c.mask), c.prefix, c.segments, c.grid_h, c.grid_w);
}

AttentionArgs args_of(const Case& c) {
  AttentionArgs args{.heads = c.heads,
                     .kv_heads = c.kv_heads,
                     .head_dim = c.dim,
                     .scale = 1.0 / std::sqrt(static_cast<double>(c.dim)),
                     .mask = c.mask,
                     .prefix = c.prefix};
  if (!c.segments) return args;
  std::vector<std::int32_t> start;
  for (std::int64_t b = 0; b < c.batch; ++b)
    for (std::int64_t i = 0; i < c.tokens; ++i)
      start.push_back(static_cast<std::int32_t>(i / (11 + b) * (11 + b)));
  args.segment_start = Tensor::from(start, {c.batch, c.tokens});
  return args;
}

void check(const Case& c, DType dtype) {
  SCOPED_TRACE(describe(c, dtype));
  const AttentionArgs args = args_of(c);
  const Both qkv = random_both({c.batch, c.tokens, (c.heads + 2 * c.kv_heads) * c.dim}, 1, dtype);
  const Both grad = random_both({c.batch, c.tokens, c.heads * c.dim}, 2, dtype);
  Both table_h, table_w;
  if (c.grid_h > 0) {
    table_h = random_both({2 * c.grid_h - 1, c.dim}, 3, DType::f32, 0.2);
    table_w = random_both({2 * c.grid_w - 1, c.dim}, 4, DType::f32, 0.2);
  }
  const AttentionResult got = attention_forward(qkv.cuda, args, table_h.cuda, table_w.cuda);
  const AttentionResult want = attention_forward(qkv.cpu, args, table_h.cpu, table_w.cpu);
  EXPECT_TRUE(matches(got.out, want.out, dtype, 32));
  // bf16 rounds the tables too, which the log-sum-exp shows.
  if (dtype == DType::f32 || c.grid_h == 0) {
    EXPECT_TRUE(matches(got.log_sum_exp, want.log_sum_exp, DType::f32, 32));
  }
  const AttentionGradients a =
      attention_backward(grad.cuda, qkv.cuda, got, args, table_h.cuda, table_w.cuda);
  const AttentionGradients b =
      attention_backward(grad.cpu, qkv.cpu, want, args, table_h.cpu, table_w.cpu);
  EXPECT_TRUE(matches(a.grad_qkv, b.grad_qkv, dtype, 64));
  if (dtype == DType::f32 || c.grid_h != 1) {
    EXPECT_TRUE(matches(a.grad_table_h, b.grad_table_h, dtype, 200));
  }
  // Over one column the gradient is the sum of a softmax's gradient: zero, and in bf16 its
  // rounding.
  if (dtype == DType::f32 || c.grid_w != 1) {
    EXPECT_TRUE(matches(a.grad_table_w, b.grad_table_w, dtype, 200));
  }
}

TEST(CudaAttention, FullMask) {
  for (const DType dtype : kStorageTypes) {
    check({1, 1, 1, 1, 8}, dtype);
    check({2, 7, 2, 1, 16}, dtype);
    check({1, 33, 3, 3, 5}, dtype);  // odd head size: no 16-byte copies
    check({1, 70, 2, 2, 64}, dtype);
    check({1, 65, 1, 1, 128}, dtype);
  }
}

TEST(CudaAttention, CausalMaskAndPackedSamples) {
  for (const DType dtype : kStorageTypes) {
    check({2, 37, 4, 2, 16, MaskKind::causal}, dtype);
    check({1, 130, 2, 1, 32, MaskKind::causal}, dtype);
    check({2, 90, 2, 1, 16, MaskKind::causal, 0, true}, dtype);
  }
}

TEST(CudaAttention, PrefixSeesItselfAndTheRestIsCausal) {
  for (const DType dtype : kStorageTypes)
    for (const std::int64_t prefix : {0, 1, 40, 75})
      check({1, 75, 2, 1, 16, MaskKind::prefix_causal, prefix}, dtype);
}

TEST(CudaAttention, RelativePositionsOfAGrid) {
  for (const DType dtype : kStorageTypes) {
    check({1, 12, 2, 2, 16, MaskKind::full, 0, false, 3, 4}, dtype);
    check({2, 49, 1, 1, 32, MaskKind::full, 0, false, 7, 7}, dtype);
    check({1, 70, 2, 2, 8, MaskKind::full, 0, false, 2, 35}, dtype);  // rows longer than f32 tiles
    check({1, 140, 1, 1, 16, MaskKind::full, 0, false, 2, 70}, dtype);  // and than any tile
    check({1, 9, 1, 1, 8, MaskKind::full, 0, false, 9, 1}, dtype);
    check({1, 1, 1, 1, 8, MaskKind::full, 0, false, 1, 1}, dtype);
  }
}

TEST(CudaAttention, LargeScoresDoNotOverflow) {
  for (const DType dtype : kStorageTypes) {
    AttentionArgs args{.heads = 1, .kv_heads = 1, .head_dim = 8, .scale = 30.0};
    const Both qkv = random_both({1, 40, 24}, 1, dtype, 3.0);
    EXPECT_TRUE(matches(attention_forward(qkv.cuda, args).out, attention_forward(qkv.cpu, args).out,
                        dtype, 2000));
  }
}

TEST(CudaAttention, CachesOfDifferentLengths) {
  for (const DType dtype : kStorageTypes)
    for (const std::int64_t rows : {1, 3, 40}) {
      AttentionArgs args{.heads = 4, .kv_heads = 2, .head_dim = 16, .scale = 0.25};
      const Both q = random_both({3, rows, 64}, 1, dtype);
      const Both keys = random_both({3, 90, 32}, 2, dtype),
                 values = random_both({3, 90, 32}, 3, dtype);
      const Tensor past = Tensor::from(std::vector<std::int32_t>{0, 17, 50}, {3});
      EXPECT_TRUE(matches(attention_cached(q.cuda, keys.cuda, values.cuda, args, past),
                          attention_cached(q.cpu, keys.cpu, values.cpu, args, past), dtype, 32));
      const Tensor wide = Tensor::zeros({3, 90, 80}, dtype, gpu());
      wide.slice(2, 8, 40).copy_from(keys.cuda);
      EXPECT_TRUE(matches(attention_cached(q.cuda, wide.slice(2, 8, 40), values.cuda, args, past),
                          attention_cached(q.cpu, keys.cpu, values.cpu, args, past), dtype, 32));
    }
}

/// What lies behind a cache's rows was never written: it may be anything, and is NaN here.
TEST(CudaAttention, WhatNobodyWroteIntoACacheIsNotRead) {
  for (const DType dtype : kStorageTypes)
    for (const std::int64_t rows : {1, 3, 40}) {
      AttentionArgs args{.heads = 4, .kv_heads = 2, .head_dim = 16, .scale = 0.25};
      const Both q = random_both({3, rows, 64}, 1, dtype),
                 keys = random_both({3, 90, 32}, 2, dtype),
                 values = random_both({3, 90, 32}, 3, dtype);
      const std::vector<std::int32_t> lengths = {0, 17, 50};
      for (std::int64_t b = 0; b < 3; ++b)
        for (const Tensor& cache : {keys.cuda, values.cuda})
          cache.slice(0, b, b + 1)
              .slice(1, lengths[static_cast<std::size_t>(b)] + rows, 90)
              .fill(std::numeric_limits<double>::quiet_NaN());
      const Tensor past = Tensor::from(lengths, {3});
      EXPECT_TRUE(matches(attention_cached(q.cuda, keys.cuda, values.cuda, args, past),
                          attention_cached(q.cpu, keys.cpu, values.cpu, args, past), dtype, 32));
    }
}

TEST(CudaAttention, TheSameBitsInEveryRun) {
  const Case c{1, 75, 4, 2, 16, MaskKind::causal};
  const Both qkv = random_both({1, 75, 128}, 1, DType::bf16),
             grad = random_both({1, 75, 64}, 2, DType::bf16);
  const auto run = [&] {
    const AttentionResult y = attention_forward(qkv.cuda, args_of(c));
    return attention_backward(grad.cuda, qkv.cuda, y, args_of(c)).grad_qkv;
  };
  EXPECT_TRUE(testing::is_equal(run(), run()));
}

TEST(CudaAttention, RefusesWhatItCannotDo) {
  const Both qkv = random_both({1, 4, 3 * 136}, 1);
  const AttentionArgs args{.heads = 1, .kv_heads = 1, .head_dim = 136};
  EXPECT_TRUE(throws_with([&] { attention_forward(qkv.cuda, args); },
                          {"attention: head_dim must be at most 128 on CUDA, got 136"}));
}

}  // namespace
}  // namespace lectern
