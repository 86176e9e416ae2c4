#include "core/cpu/gemm_bf16.h"

#include "core/cpu/gemm_tiles.h"
#include "core/cpu/simd.h"
#include "core/error.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

// The blocking of gemm.cpp with a pair of bfloat16 numbers in the place of one float: VDPBF16PS
// multiplies two neighbours along k and adds both products to a lane. B is packed into panels whose
// lanes are pairs (k, k + 1) of one column; A is read in place where its rows are contiguous. An
// odd k is filled up with zeros.
namespace lectern {

using namespace gemm_tiles;

namespace {

/// Two neighbours along k.
using Pair = simd::Bf16Pair;
using Sums = Vec<float>;
using Pairs = Vec<Pair>;

constexpr std::int64_t kLane = kLanes<Pair>, kPanel = kColumns<Pair>;
/// In pairs: twice the depth of the f32 blocks, as many bytes.
constexpr std::int64_t kDepth = 256;
constexpr std::int64_t kBlockRows = 16 * kRows, kBlockColumns = 1024;

inline Pair pair_at(const BFloat16* from) {
  Pair pair;
  __builtin_memcpy(&pair, from, sizeof pair);
  return pair;
}
inline Pairs splat(Pair pair) { return pair - Pairs{}; }

/// Where the pair (row i, depth p) of a block of A is: at[i * row + p * depth].
struct BlockA {
  const BFloat16* at;
  std::int64_t row, depth;
};

/// C tile [R, V vectors] = or += A[R, depth] B[depth, V vectors] for a packed panel of B. A `bias`
/// that is not null starts every row's sum.
template <int R, int V>
void tile(std::int64_t depth, const BlockA& a, const Pair* b, const float* bias, float* c,
          std::int64_t ldc, bool accumulate) {
  Sums sum[R][V] = {};
  if (bias != nullptr) {
#pragma GCC unroll 12
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[i][v] = load_as<Vec<float>>(bias + v * kLane);
  }
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i) {
    __builtin_prefetch(c + i * ldc, 1);
    __builtin_prefetch(c + i * ldc + V * kLane - 1, 1);
  }
  const BFloat16* rows = a.at;
  for (std::int64_t p = 0; p < depth; ++p, rows += a.depth, b += kPanel) {
    Pairs columns[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) columns[v] = load_as<Vec<Pair>>(b + v * kLane);
#pragma GCC unroll 12
    for (int i = 0; i < R; ++i) {
      const Pairs x = splat(pair_at(rows + i * a.row));
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[i][v] = simd::add_pair_products(sum[i][v], x, columns[v]);
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      float* to = c + i * ldc + v * kLane;
      store(to, accumulate ? load_as<Vec<float>>(to) + sum[i][v] : sum[i][v]);
    }
}

using Tile = void (*)(std::int64_t, const BlockA&, const Pair*, const float*, float*, std::int64_t,
                      bool);

/// The tile kernel for 1..kRows rows.
template <int V>
Tile tile_for(std::int64_t rows) {
  static constexpr auto kTable = []<int... R>(std::integer_sequence<int, R...>) {
    return std::array<Tile, sizeof...(R)>{tile<R + 1, V>...};
  }
  (std::make_integer_sequence<int, kRows>());
  return kTable[static_cast<std::size_t>(rows - 1)];
}

/// One tile with `columns` valid columns, 1..kPanel.
void run_tile(std::int64_t rows, std::int64_t columns, std::int64_t depth, const BlockA& a,
              const Pair* b, const float* bias, float* c, std::int64_t ldc, bool accumulate) {
  const bool narrow = columns <= kLane;
  const auto kernel = narrow ? tile_for<1>(rows) : tile_for<2>(rows);
  if (columns == (narrow ? kLane : kPanel)) {
    kernel(depth, a, b, bias, c, ldc, accumulate);
    return;
  }
  alignas(simd::kWideBytes) float whole[kRows * kPanel];
  alignas(simd::kWideBytes) float padded[kPanel] = {};
  if (bias != nullptr) std::copy_n(bias, columns, padded);
  kernel(depth, a, b, bias == nullptr ? nullptr : padded, whole, kPanel, false);
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j) {
      const float value = whole[i * kPanel + j];
      c[i * ldc + j] = accumulate ? c[i * ldc + j] + value : value;
    }
}

/// to[j] = pair of first[j] and second[j]; a null second is zero.
inline void interleave(const BFloat16* first, const BFloat16* second, std::int64_t count,
                       Pair* to) {
  if (second == nullptr) {
    for (std::int64_t j = 0; j < count; ++j) to[j] = Pair{first[j].bits};
    return;
  }
#pragma omp simd
  for (std::int64_t j = 0; j < count; ++j)
    to[j] = Pair{first[j].bits} | static_cast<Pair>(second[j].bits) << 16;
}

/// One panel of B: to[p * kPanel + j] = (B(2p, j), B(2p + 1, j)) for `columns` columns and `depth`
/// values of k, the rest zero.
void pack_panel(bool transposed, const BFloat16* b, std::int64_t ldb, std::int64_t depth,
                std::int64_t columns, Pair* to) {
  const std::int64_t pairs = blocks(depth, 2);
  if (!transposed) {
    for (std::int64_t p = 0; p < pairs; ++p, b += 2 * ldb, to += kPanel) {
      const BFloat16* second = 2 * p + 1 < depth ? b + ldb : nullptr;
      if (columns == kPanel) {
        interleave(b, second, kPanel, to);
      } else {
        interleave(b, second, columns, to);
        std::fill_n(to + columns, kPanel - columns, Pair{0});
      }
    }
    return;
  }
  const std::int64_t whole_pairs = depth / 2 / kLane * kLane;
  for (std::int64_t j = 0; j < kPanel; j += kLane) {
    const bool whole = j + kLane <= columns;
    if (whole)
      for (std::int64_t p = 0; p < whole_pairs; p += kLane)
        transpose_square<Pair>(b + j * ldb + 2 * p,
                               ldb * static_cast<std::int64_t>(sizeof(BFloat16)),
                               to + p * kPanel + j, kPanel);
    for (std::int64_t p = whole ? whole_pairs : 0; p < pairs; ++p)
      for (std::int64_t i = j; i < j + kLane; ++i) {
        const BFloat16* at = b + i * ldb + 2 * p;
        to[p * kPanel + i] = i >= columns        ? Pair{0}
                             : 2 * p + 1 < depth ? pair_at(at)
                                                 : Pair{at->bits};
      }
  }
}

/// Makes A's block [rows, depth] cheap to read: transposed A is packed into panels of kRows pairs;
/// rows of odd length are copied and filled up, as are rows whose distance maps them onto the same
/// cache sets; else A is read in place.
class RowsOfA {
 public:
  RowsOfA(const GemmArgs& args, const BFloat16* a, std::int64_t rows, std::int64_t depth,
          std::int64_t uses)
      : at_(a), row_(args.lda), depth_(2) {
    if (args.transpose_a) {
      pack_transposed(args.lda, a, rows, depth);
    } else if (depth % 2 != 0 || (args.lda % 512 == 0 && uses > 2)) {
      constexpr std::int64_t kApart = 2 * kDepth + simd::kWideBytes / 2;
      BFloat16* to = scratch<BFloat16, 0>(kBlockRows * kApart);
      for (std::int64_t i = 0; i < rows; ++i) {
        std::copy_n(a + i * args.lda, depth, to + i * kApart);
        to[i * kApart + depth].bits = 0;
      }
      at_ = to;
      row_ = kApart;
    }
    if (!args.transpose_a) panel_ = row_;
  }
  /// The tile that starts at row i, a multiple of kRows.
  BlockA tile(std::int64_t i) const { return {at_ + i * panel_, row_, depth_}; }

 private:
  void pack_transposed(std::int64_t lda, const BFloat16* a, std::int64_t rows, std::int64_t depth) {
    const std::int64_t pairs = blocks(depth, 2);
    Pair* to = scratch<Pair, 2>(kBlockRows * kDepth);
    for (std::int64_t i = 0; i < rows; i += kRows) {
      const std::int64_t count = std::min<std::int64_t>(kRows, rows - i);
      for (std::int64_t p = 0; p < pairs; ++p) {
        const BFloat16* first = a + 2 * p * lda + i;
        const BFloat16* second = 2 * p + 1 < depth ? first + lda : nullptr;
        Pair* panel = to + i * pairs + p * kRows;
        if (count == kRows)
          interleave(first, second, kRows, panel);
        else
          interleave(first, second, count, panel);
      }
    }
    at_ = reinterpret_cast<const BFloat16*>(to);  // a Pair is two of them, low half first
    panel_ = 2 * pairs;
    row_ = 2;
    depth_ = 2 * kRows;
  }

  const BFloat16* at_;
  std::int64_t row_, depth_, panel_ = 0;
};

/// The product on one thread.
void gemm_serial(const GemmArgs& args, const BFloat16* a, const BFloat16* b, const float* bias,
                 float* c) {
  const std::int64_t step = 2 * depth_of(blocks(args.k, 2), kDepth);
  for (std::int64_t jc = 0; jc < args.n; jc += kBlockColumns) {
    const std::int64_t columns = std::min(kBlockColumns, args.n - jc);
    for (std::int64_t pc = 0; pc < args.k; pc += step) {
      const std::int64_t depth = std::min(step, args.k - pc), pairs = blocks(depth, 2);
      const bool add = args.accumulate || pc > 0;
      Pair* packed = scratch<Pair, 1>(kBlockColumns * kDepth);
      for (std::int64_t j = 0; j < columns; j += kPanel)
        pack_panel(args.transpose_b, offset_b(args, b, pc, jc + j), args.ldb, depth,
                   std::min(kPanel, columns - j), packed + j * pairs);
      for (std::int64_t ic = 0; ic < args.m; ic += kBlockRows) {
        const std::int64_t rows = std::min(kBlockRows, args.m - ic);
        const RowsOfA block(args, offset_a(args, a, ic, pc), rows, depth, blocks(columns, kPanel));
        for (std::int64_t j = 0; j < columns; j += kPanel)
          for (std::int64_t i = 0; i < rows; i += kRows)
            run_tile(std::min<std::int64_t>(kRows, rows - i), std::min(kPanel, columns - j), pairs,
                     block.tile(i), packed + j * pairs,
                     bias == nullptr || pc > 0 ? nullptr : bias + jc + j,
                     c + (ic + i) * args.ldc + jc + j, args.ldc, add);
      }
    }
  }
}

constexpr std::int64_t kDotRows = 8;

/// R rows of A against the rows of a transposed B: the decoding step's product, which reads B once
/// and is bound by memory.
template <int R>
void gemm_dots(const GemmArgs& args, const BFloat16* a, const BFloat16* b, const float* bias,
               float* c) {
  constexpr int kUnroll = R <= 2 ? 4 : 2;
  constexpr std::int64_t kStep = 2 * kLane;  // numbers in a vector
  for (std::int64_t j = 0; j < args.n; ++j, b += args.ldb) {
    Sums sum[R][kUnroll] = {};
    std::int64_t p = 0;
    for (; p + kUnroll * kStep <= args.k; p += kUnroll * kStep)
#pragma GCC unroll 4
      for (int u = 0; u < kUnroll; ++u) {
        const Pairs column = load_as<Vec<Pair>>(b + p + u * kStep);
#pragma GCC unroll 8
        for (int i = 0; i < R; ++i)
          sum[i][u] = simd::add_pair_products(
              sum[i][u], load_as<Vec<Pair>>(a + i * args.lda + p + u * kStep), column);
      }
    for (; p + kStep <= args.k; p += kStep) {
      const Pairs column = load_as<Vec<Pair>>(b + p);
#pragma GCC unroll 8
      for (int i = 0; i < R; ++i)
        sum[i][0] =
            simd::add_pair_products(sum[i][0], load_as<Vec<Pair>>(a + i * args.lda + p), column);
    }
    for (int i = 0; i < R; ++i) {
      Sums all = sum[i][0];
      for (int u = 1; u < kUnroll; ++u) all += sum[i][u];
      float& to = c[i * args.ldc + j];
      float total = args.accumulate ? to : bias != nullptr ? bias[j] : 0.0F;
      for (std::int64_t lane = 0; lane < kLane; ++lane) total += all[lane];
      for (std::int64_t q = p; q < args.k; ++q)
        total += static_cast<float>(a[i * args.lda + q]) * static_cast<float>(b[q]);
      to = total;
    }
  }
}

using Dots = void (*)(const GemmArgs&, const BFloat16*, const BFloat16*, const float*, float*);
constexpr std::array<Dots, kDotRows> kDots = {gemm_dots<1>, gemm_dots<2>, gemm_dots<3>,
                                              gemm_dots<4>, gemm_dots<5>, gemm_dots<6>,
                                              gemm_dots<7>, gemm_dots<8>};

}  // namespace

void gemm_bf16(const GemmArgs& args, const BFloat16* a, const BFloat16* b, float* c,
               const float* bias) {
  if (args.m <= 0 || args.n <= 0) return;
  if (bias != nullptr && args.accumulate) fail<Error>("gemm_bf16: a bias cannot be accumulated");
  if (args.k <= 0) {
    for (std::int64_t i = 0; i < args.m && !args.accumulate; ++i) {
      if (bias != nullptr)
        std::copy_n(bias, args.n, c + i * args.ldc);
      else
        std::fill_n(c + i * args.ldc, args.n, 0.0F);
    }
    return;
  }
  const bool use_dots = args.m <= kDotRows && args.transpose_b && !args.transpose_a;
  for_thread_parts(args, kPanel, [&](GemmArgs part, std::int64_t row, std::int64_t column) {
    const BFloat16* part_a = offset_a(args, a, row, 0);
    const BFloat16* part_b = offset_b(args, b, 0, column);
    const float* part_bias = bias == nullptr ? nullptr : bias + column;
    float* part_c = c + row * args.ldc + column;
    if (use_dots)
      kDots[static_cast<std::size_t>(part.m - 1)](part, part_a, part_b, part_bias, part_c);
    else
      gemm_serial(part, part_a, part_b, part_bias, part_c);
  });
}

std::string_view bf16_arithmetic() {
#ifdef __AVX512BF16__
  return "avx512_bf16";
#else
  return "f32";
#endif
}

}  // namespace lectern
