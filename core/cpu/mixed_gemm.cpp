#include "core/cpu/mixed_gemm.h"

#include "core/convert_math.h"
#include "core/cpu/gemm_bf16.h"
#include "core/cpu/simd.h"
#include "core/parallel.h"
#include "core/tensor.h"

#include <algorithm>
#include <bit>

namespace lectern {
namespace {

using simd::load_as;

constexpr int kVectorBytes = simd::kWideBytes;
constexpr int kLanes = kVectorBytes / 4;
constexpr std::int64_t kStep = 2 * kLanes;  // bf16 values of one vector
constexpr int kColumns = 4;                 // rows of the weight that a tile sums at once
constexpr int kFewTile = 4;                 // rows of x of the widening tile
using Floats = simd::Vector<float, kVectorBytes>;
using Bits = simd::Vector<std::uint32_t, kVectorBytes>;
using Quad = simd::Vector<float, 16>;

std::int64_t blocks(std::int64_t n, std::int64_t size) { return (n + size - 1) / size; }

/// The totals of four vectors. Always the same tree, so that a total does not depend on what else
/// is summed beside it.
inline Quad totals(const Floats (&sum)[kColumns]) {
  Quad quads[kColumns];
  for (int c = 0; c < kColumns; ++c) {
    Quad parts[kVectorBytes / 16];
    __builtin_memcpy(parts, &sum[c], kVectorBytes);
    quads[c] = parts[0] + parts[1];
    if constexpr (kVectorBytes == 64) quads[c] += parts[2] + parts[3];
  }
  const Quad ab = __builtin_shufflevector(quads[0], quads[1], 0, 4, 1, 5) +
                  __builtin_shufflevector(quads[0], quads[1], 2, 6, 3, 7);
  const Quad cd = __builtin_shufflevector(quads[2], quads[3], 0, 4, 1, 5) +
                  __builtin_shufflevector(quads[2], quads[3], 2, 6, 3, 7);
  return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

/// Writes up to four columns of one row of y.
inline void put(const Quad& values, std::int64_t columns, const float* bias, float* y) {
  for (std::int64_t c = 0; c < columns; ++c) y[c] = values[c] + (bias == nullptr ? 0.0F : bias[c]);
}

/// The rows of a weight that a tile reads; past the last one it reads that one again.
struct WeightRows {
  const BFloat16* at[kColumns];

  WeightRows(const BFloat16* w, std::int64_t ldw, std::int64_t columns) {
    for (int c = 0; c < kColumns; ++c) at[c] = w + std::min<std::int64_t>(c, columns - 1) * ldw;
  }
};

// ---- few rows: the weight is widened in registers ----------------------------------------------

/// x [m, k] -> [m, ldx / kStep, 2, kLanes]: even columns of each step apart from the odd ones, as
/// the halves of a weight's 32-bit words come out; zero beyond k.
void spread_rows(const MixedGemmArgs& args, std::int64_t ldx, const float* x, float* out) {
  for (std::int64_t i = 0; i < args.m; ++i) {
    const float* from = x + i * args.ldx;
    float* to = out + i * ldx;
    for (std::int64_t p = 0; p < ldx; ++p) {
      const std::int64_t in_step = p % kStep;
      const std::int64_t place = p - in_step + in_step % 2 * kLanes + in_step / 2;
      to[place] = p < args.k ? from[p] : 0.0F;
    }
  }
}

/// Keeps the compiler from loading a value again at each use: with two loads and two products a
/// cycle, the loads would bound the tile.
inline __attribute__((always_inline)) void hold(auto& value) {
#ifdef __AVX512F__
  asm("" : "+v"(value));
#else
  (void)value;
#endif
}

/// One step of R rows of x times C rows of the weight; asks for what the caller needs `ahead` bytes
/// further on.
template <int R, int C>
inline __attribute__((always_inline)) void few_step(const float* x, std::int64_t ldx,
                                                    const BFloat16* const (&w)[C], std::int64_t at,
                                                    std::int64_t ahead, Floats (&sum)[R][C]) {
  Floats even[C], odd[C];
#pragma GCC unroll 4
  for (int c = 0; c < C; ++c) {
    __builtin_prefetch(reinterpret_cast<const char*>(w[c] + at) + ahead);
    auto words = load_as<Bits>(w[c] + at);
    hold(words);
    even[c] = std::bit_cast<Floats>(words << 16);
    odd[c] = std::bit_cast<Floats>(words & 0xffff0000U);
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    auto x_even = load_as<Floats>(x + r * ldx), x_odd = load_as<Floats>(x + r * ldx + kLanes);
    hold(x_even);
    hold(x_odd);
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sum[r][c] += x_even * even[c];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) sum[r][c] += x_odd * odd[c];
  }
}

/// sum[r][c] = row r of x (spread) times row w[c] of the weight, in kLanes parts.
template <int R, int C>
inline __attribute__((always_inline)) void few_sums(std::int64_t k, std::int64_t ldx,
                                                    const float* x, const BFloat16* const (&w)[C],
                                                    std::int64_t ahead, Floats (&sum)[R][C]) {
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) sum[r][c] = Floats{};
  std::int64_t p = 0;
  for (; p + kStep <= k; p += kStep) few_step<R, C>(x + p, ldx, w, p, ahead, sum);
  if (p == k) return;
  BFloat16 rest[C][kStep] = {};
  const BFloat16* at[C];
  for (int c = 0; c < C; ++c) {
    std::copy(w[c] + p, w[c] + k, rest[c]);
    at[c] = rest[c];
  }
  few_step<R, C>(x + p, ldx, at, 0, 0, sum);
}

/// R rows of x (spread, ldx apart) times up to kColumns rows of the weight.
template <int R>
void few_tile(const MixedGemmArgs& args, std::int64_t ldx, const float* x, const BFloat16* w,
              std::int64_t columns, const float* bias, float* y) {
  constexpr std::int64_t kAhead = 4096;  // bytes
  const WeightRows rows(w, args.ldw, columns);
  Floats sum[R][kColumns];
  if constexpr (R == 1) {
    // One row of the weight after the other: a single stream is what the memory serves best.
    for (int c = 0; c < kColumns; ++c) {
      const BFloat16* const one[1] = {rows.at[c]};
      Floats part[1][1];
      few_sums<1, 1>(args.k, ldx, x, one, kAhead, part);
      sum[0][c] = part[0][0];
    }
  } else {
    // Short rows end before a stream is recognised: ask for the rows of the next tile instead.
    const std::int64_t tile = kColumns * args.ldw * static_cast<std::int64_t>(sizeof(BFloat16));
    few_sums<R, kColumns>(args.k, ldx, x, rows.at, tile < 2 * kColumns * kAhead ? tile : kAhead,
                          sum);
  }
  for (int r = 0; r < R; ++r) put(totals(sum[r]), columns, bias, y + r * args.ldy);
}

/// Columns first .. last - 1 of y.
void few_rows(const MixedGemmArgs& args, std::int64_t ldx, const float* x, const BFloat16* w,
              const float* bias, float* y, std::int64_t first, std::int64_t last) {
  static constexpr decltype(&few_tile<1>) kTiles[kFewTile] = {few_tile<1>, few_tile<2>, few_tile<3>,
                                                              few_tile<4>};
  const std::int64_t tile = blocks(args.m, blocks(args.m, kFewTile));  // equal parts
  for (std::int64_t j = first; j < last; j += kColumns)
    for (std::int64_t i = 0; i < args.m; i += tile)
      kTiles[std::min(tile, args.m - i) - 1](
          args, ldx, x + i * ldx, w + j * args.ldw, std::min<std::int64_t>(kColumns, last - j),
          bias == nullptr ? nullptr : bias + j, y + i * args.ldy + j);
}

void run_few_rows(const MixedGemmArgs& args, const float* x, const BFloat16* w, const float* bias,
                  float* y) {
  constexpr std::int64_t kGrain = 1 << 15;  // elements of the weight that are worth a thread
  const std::int64_t ldx = blocks(args.k, kStep) * kStep;
  const Tensor spread = Tensor::empty({args.m, ldx});
  spread_rows(args, ldx, x, spread.data<float>());
  parallel_for(blocks(args.n, kColumns), 1 + kGrain / (kColumns * args.k),
               [&, from = spread.data<float>()](std::int64_t begin, std::int64_t end) {
                 few_rows(args, ldx, from, w, bias, y, begin * kColumns,
                          std::min(args.n, end * kColumns));
               });
}

// ---- many rows: x is rounded, and gemm_bf16() does the rest
// --------------------------------------

void run_many_rows(const MixedGemmArgs& args, const float* x, const BFloat16* w, const float* bias,
                   float* y) {
  const Tensor rounded = Tensor::empty({args.m, args.k}, DType::bf16);
  BFloat16* to = rounded.data<BFloat16>();
  parallel_for(args.m, 1 + (1 << 15) / args.k, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      convert_math::row_to_bf16(x + i * args.ldx, args.k, to + i * args.k);
  });
  gemm_bf16({.transpose_b = true,
             .m = args.m,
             .n = args.n,
             .k = args.k,
             .lda = args.k,
             .ldb = args.ldw,
             .ldc = args.ldy},
            to, w, y, bias);
}

}  // namespace

void mixed_gemm(const MixedGemmArgs& args, const float* x, const BFloat16* w, const float* bias,
                float* y) {
  if (args.m <= 0 || args.n <= 0) return;
  if (args.k <= 0) {
    for (std::int64_t i = 0; i < args.m; ++i)
      for (std::int64_t j = 0; j < args.n; ++j)
        y[i * args.ldy + j] = bias == nullptr ? 0.0F : bias[j];
    return;
  }
  if (args.m <= kExactRows)
    run_few_rows(args, x, w, bias, y);
  else
    run_many_rows(args, x, w, bias, y);
}

}  // namespace lectern
