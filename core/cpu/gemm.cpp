#include "core/cpu/gemm.h"

#include "core/cpu/dnnl_support.h"
#include "core/cpu/gemm_tiles.h"
#include "core/error.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>
#include <utility>

// Blocking as in BLIS: a register tile of kRows x kColumns is summed over kDepth values of k; the
// column panel of B that it reads stays in the first-level cache while a block of kBlockRows rows
// of A, held in the second-level cache, passes by. B is packed into such panels; A is read in place
// where its rows are contiguous. The order in which one element of C is summed depends on k alone.
namespace lectern {

using namespace gemm_tiles;

namespace {

constexpr std::int64_t kDepth = 256, kBlockRows = 16 * kRows, kBlockColumns = 1024;

/// Where element (row i, depth p) of a block of A is: at[i * row + p * depth].
template <typename T>
struct BlockA {
  const T* at;
  std::int64_t row, depth;
};

/// C tile [R, V vectors] = or += A[R, depth] B[depth, V vectors]. B rows are `ldb` apart. A `bias`
/// that is not null starts every row's sum.
template <typename T, int R, int V>
void tile(std::int64_t depth, const BlockA<T>& a, const T* b, std::int64_t ldb, const T* bias, T* c,
          std::int64_t ldc, bool accumulate) {
  Vec<T> sum[R][V] = {};
  if (bias != nullptr) {
#pragma GCC unroll 12
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[i][v] = load_as<Vec<T>>(bias + v * kLanes<T>);
  }
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i) {
    __builtin_prefetch(c + i * ldc, 1);
    __builtin_prefetch(c + i * ldc + V * kLanes<T> - 1, 1);
  }
  const T* rows = a.at;
  for (std::int64_t p = 0; p < depth; ++p, rows += a.depth, b += ldb) {
    Vec<T> columns[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) columns[v] = load_as<Vec<T>>(b + v * kLanes<T>);
#pragma GCC unroll 12
    for (int i = 0; i < R; ++i) {
      const T x = rows[i * a.row];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[i][v] += x * columns[v];
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      T* to = c + i * ldc + v * kLanes<T>;
      store(to, accumulate ? load_as<Vec<T>>(to) + sum[i][v] : sum[i][v]);
    }
}

template <typename T>
using Tile = void (*)(std::int64_t, const BlockA<T>&, const T*, std::int64_t, const T*, T*,
                      std::int64_t, bool);

/// The tile kernel for 1..kRows rows.
template <typename T, int V>
Tile<T> tile_for(std::int64_t rows) {
  static constexpr auto kTable = []<int... R>(std::integer_sequence<int, R...>) {
    return std::array<Tile<T>, sizeof...(R)>{tile<T, R + 1, V>...};
  }
  (std::make_integer_sequence<int, kRows>());
  return kTable[static_cast<std::size_t>(rows - 1)];
}

/// One tile with `columns` valid columns, 1..kColumns; B must be readable in whole vectors.
template <typename T>
void run_tile(std::int64_t rows, std::int64_t columns, std::int64_t depth, const BlockA<T>& a,
              const T* b, std::int64_t ldb, const T* bias, T* c, std::int64_t ldc,
              bool accumulate) {
  const bool narrow = columns <= kLanes<T>;
  const auto kernel = narrow ? tile_for<T, 1>(rows) : tile_for<T, 2>(rows);
  if (columns == (narrow ? kLanes<T> : kColumns<T>)) {
    kernel(depth, a, b, ldb, bias, c, ldc, accumulate);
    return;
  }
  alignas(simd::kWideBytes) T whole[kRows * kColumns<T>];
  alignas(simd::kWideBytes) T padded[kColumns<T>] = {};
  if (bias != nullptr) std::copy_n(bias, columns, padded);
  kernel(depth, a, b, ldb, bias == nullptr ? nullptr : padded, whole, kColumns<T>, false);
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j) {
      const T value = whole[i * kColumns<T> + j];
      c[i * ldc + j] = accumulate ? c[i * ldc + j] + value : value;
    }
}

/// One panel of B: to[p * kColumns + j] = B(p, j) for `columns` columns, the rest zero.
template <typename T>
void pack_panel(bool transposed, const T* b, std::int64_t ldb, std::int64_t depth,
                std::int64_t columns, T* to) {
  constexpr std::int64_t kL = kLanes<T>, kC = kColumns<T>;
  if (!transposed) {
    for (std::int64_t p = 0; p < depth; ++p, b += ldb, to += kC) {
      if (columns == kC) {
        store(to, load_as<Vec<T>>(b));
        store(to + kL, load_as<Vec<T>>(b + kL));
      } else {
        std::copy_n(b, columns, to);
        std::fill_n(to + columns, kC - columns, T{0});
      }
    }
    return;
  }
  const std::int64_t whole_depth = depth / kL * kL;
  for (std::int64_t j = 0; j < kC; j += kL) {
    const bool whole = j + kL <= columns;
    if (whole)
      for (std::int64_t p = 0; p < whole_depth; p += kL)
        transpose_square<T>(b + j * ldb + p, ldb * static_cast<std::int64_t>(sizeof(T)),
                            to + p * kC + j, kC);
    for (std::int64_t p = whole ? whole_depth : 0; p < depth; ++p)
      for (std::int64_t i = j; i < j + kL; ++i)
        to[p * kC + i] = i < columns ? b[i * ldb + p] : T{0};
  }
}

/// Makes A's block [rows, depth] cheap to read: transposed A is packed into panels of kRows; rows
/// whose distance maps them onto the same cache sets are copied apart; else A is read in place.
template <typename T>
class RowsOfA {
 public:
  RowsOfA(const GemmArgs& args, const T* a, std::int64_t rows, std::int64_t depth,
          std::int64_t uses)
      : at_(a), row_(args.lda), depth_(1) {
    if (args.transpose_a) {
      T* to = scratch<T, 0>(kBlockRows * kDepth);
      for (std::int64_t i = 0; i < rows; i += kRows) {
        const std::int64_t count = std::min<std::int64_t>(kRows, rows - i);
        for (std::int64_t p = 0; p < depth; ++p) {
          T* panel = to + i * depth + p * kRows;
          if (count == kRows) {
            std::memcpy(panel, a + p * args.lda + i, kRows * sizeof(T));
          } else {
            std::copy_n(a + p * args.lda + i, count, panel);
          }
        }
      }
      at_ = to;
      panel_ = depth;
      row_ = 1;
      depth_ = kRows;
    } else if (args.lda * static_cast<std::int64_t>(sizeof(T)) % 1024 == 0 && uses > 2) {
      constexpr std::int64_t kApart = kDepth + simd::kWideBytes / static_cast<int>(sizeof(T));
      T* to = scratch<T, 0>(kBlockRows * kApart);
      for (std::int64_t i = 0; i < rows; ++i)
        std::memcpy(to + i * kApart, a + i * args.lda, static_cast<std::size_t>(depth) * sizeof(T));
      at_ = to;
      row_ = kApart;
      panel_ = kApart;
    } else {
      panel_ = args.lda;
    }
  }
  /// The tile that starts at row i, a multiple of kRows.
  BlockA<T> tile(std::int64_t i) const { return {at_ + i * panel_, row_, depth_}; }

 private:
  const T* at_;
  std::int64_t row_, depth_, panel_ = 0;
};

/// The product on one thread.
template <typename T>
void gemm_serial(const GemmArgs& args, const T* a, const T* b, const T* bias, T* c) {
  const std::int64_t step = depth_of(args.k, kDepth);
  // With few rows of A, packing B would cost more than it saves.
  const bool in_place = args.m <= kRows && !args.transpose_b;
  for (std::int64_t jc = 0; jc < args.n; jc += kBlockColumns) {
    const std::int64_t columns = std::min(kBlockColumns, args.n - jc);
    for (std::int64_t pc = 0; pc < args.k; pc += step) {
      const std::int64_t depth = std::min(step, args.k - pc);
      const bool add = args.accumulate || pc > 0;
      T* packed = scratch<T, 1>(kBlockColumns * kDepth);
      const std::int64_t whole = in_place ? columns / kColumns<T> * kColumns<T> : 0;
      for (std::int64_t j = whole; j < columns; j += kColumns<T>)
        pack_panel(args.transpose_b, offset_b(args, b, pc, jc + j), args.ldb, depth,
                   std::min<std::int64_t>(kColumns<T>, columns - j), packed + j * depth);
      for (std::int64_t ic = 0; ic < args.m; ic += kBlockRows) {
        const std::int64_t rows = std::min(kBlockRows, args.m - ic);
        const RowsOfA<T> block(args, offset_a(args, a, ic, pc), rows, depth,
                               blocks(columns, kColumns<T>));
        for (std::int64_t j = 0; j < columns; j += kColumns<T>)
          for (std::int64_t i = 0; i < rows; i += kRows)
            run_tile(std::min<std::int64_t>(kRows, rows - i),
                     std::min<std::int64_t>(kColumns<T>, columns - j), depth, block.tile(i),
                     j < whole ? offset_b(args, b, pc, jc + j) : packed + j * depth,
                     j < whole ? args.ldb : kColumns<T>,
                     bias == nullptr || pc > 0 ? nullptr : bias + jc + j,
                     c + (ic + i) * args.ldc + jc + j, args.ldc, add);
      }
    }
  }
}

/// Sum of the products of two rows, in kLanes partial sums.
template <typename T, int R>
void dots(const T* const (&a)[R], const T* b, std::int64_t k, T (&out)[R]) {
  constexpr std::int64_t kL = kLanes<T>;
  Vec<T> sum[R][2] = {};
  std::int64_t p = 0;
  for (; p + 2 * kL <= k; p += 2 * kL) {
    const Vec<T> b0 = load_as<Vec<T>>(b + p), b1 = load_as<Vec<T>>(b + p + kL);
#pragma GCC unroll 4
    for (int i = 0; i < R; ++i) {
      sum[i][0] += load_as<Vec<T>>(a[i] + p) * b0;
      sum[i][1] += load_as<Vec<T>>(a[i] + p + kL) * b1;
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < R; ++i) {
    const Vec<T> both = sum[i][0] + sum[i][1];
    T total = 0;
    for (int lane = 0; lane < kL; ++lane) total += both[lane];
    for (std::int64_t q = p; q < k; ++q) total += a[i][q] * b[q];
    out[i] = total;
  }
}

constexpr std::int64_t kDotRows = 4;

/// Up to kDotRows rows of A against rows of a transposed B: the decoding step's matrix-vector
/// product, which reads B once and is bound by memory.
template <typename T, int R>
void gemm_dots(const GemmArgs& args, const T* a, const T* b, const T* bias, T* c) {
  const T* rows[R];
  for (int i = 0; i < R; ++i) rows[i] = a + i * args.lda;
  for (std::int64_t j = 0; j < args.n; ++j) {
    T out[R];
    dots<T, R>(rows, b + j * args.ldb, args.k, out);
    for (int i = 0; i < R; ++i) {
      T& to = c[i * args.ldc + j];
      const T start = args.accumulate ? to : bias != nullptr ? bias[j] : T{0};
      to = start + out[i];
    }
  }
}

template <typename T>
void gemm_part(const GemmArgs& args, bool use_dots, const T* a, const T* b, const T* bias, T* c) {
  if (!use_dots) return gemm_serial(args, a, b, bias, c);
  switch (args.m) {
    case 1:
      return gemm_dots<T, 1>(args, a, b, bias, c);
    case 2:
      return gemm_dots<T, 2>(args, a, b, bias, c);
    case 3:
      return gemm_dots<T, 3>(args, a, b, bias, c);
    default:
      return gemm_dots<T, 4>(args, a, b, bias, c);
  }
}

/// Multiply-adds, rows and columns of C, and depth from which oneDNN's sgemm beats the kernel
/// above.
constexpr std::int64_t kLibraryWork = 1 << 20, kLibraryRows = 16, kLibraryDepth = 32;

template <typename T>
void gemm_parallel(const GemmArgs& args, const T* a, const T* b, const T* bias, T* c) {
  const bool use_dots = args.m <= kDotRows && args.transpose_b && !args.transpose_a;
  for_thread_parts(
      args, kColumns<T>, [&](const GemmArgs& part, std::int64_t row, std::int64_t column) {
        gemm_part(part, use_dots, offset_a(args, a, row, 0), offset_b(args, b, 0, column),
                  bias == nullptr ? nullptr : bias + column, c + row * args.ldc + column);
      });
}

/// True when oneDNN's sgemm is the faster one and gives the same bits for any number of threads:
/// measured so for B as stored, while its transposed-B form splits k over threads. Whether we are
/// inside a parallel region must not decide it: the two kernels round differently.
bool library_is_better(const GemmArgs& args) {
  return !args.transpose_b && args.m >= kLibraryRows && args.n >= kLibraryRows &&
         args.k >= kLibraryDepth && args.m * args.n >= (kLibraryWork + args.k - 1) / args.k;
}

}  // namespace

template <typename T>
void gemm(const GemmArgs& args, const T* a, const T* b, T* c) {
  if (args.m <= 0 || args.n <= 0) return;
  if (args.k <= 0) {
    for (std::int64_t i = 0; i < args.m && !args.accumulate; ++i)
      std::fill_n(c + i * args.ldc, args.n, T{0});
    return;
  }
  if constexpr (std::is_same_v<T, float>) {
    if (library_is_better(args)) {
      static const bool has_code = (require_memory_for_code(), true);  // compiled once
      static_cast<void>(has_code);
      const auto status =
          dnnl_sgemm(args.transpose_a ? 'T' : 'N', 'N', args.m, args.n, args.k, 1.0F, a, args.lda,
                     b, args.ldb, args.accumulate ? 1.0F : 0.0F, c, args.ldc);
      if (status == dnnl_success) return;
    }
  }
  gemm_parallel<T>(args, a, b, nullptr, c);
}

template <typename T>
void gemm_bias(const GemmArgs& args, const T* a, const T* b, const T* bias, T* c) {
  if (args.m <= 0 || args.n <= 0) return;
  if (bias == nullptr || args.accumulate)
    fail<Error>("gemm_bias: needs a bias and cannot accumulate");
  if (args.k <= 0) {
    for (std::int64_t i = 0; i < args.m; ++i) std::copy_n(bias, args.n, c + i * args.ldc);
    return;
  }
  gemm_parallel(args, a, b, bias, c);
}

template void gemm<float>(const GemmArgs&, const float*, const float*, float*);
template void gemm<double>(const GemmArgs&, const double*, const double*, double*);
template void gemm_bias<float>(const GemmArgs&, const float*, const float*, const float*, float*);
template void gemm_bias<double>(const GemmArgs&, const double*, const double*, const double*,
                                double*);

}  // namespace lectern
