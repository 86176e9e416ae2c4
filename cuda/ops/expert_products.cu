#include "cuda/launch.h"
#include "cuda/ops/expert_products.h"
#include "cuda/tiles.h"
#include "cuda/vectors.h"

namespace lectern::cuda {
namespace {

constexpr int kThreads = 256, kStages = 2;

/// A block's tile of the result, cut into strips of 16 rows by halves of the columns for its eight
/// warps, and the depth of one step.
template <typename T>
struct Tile {
  static constexpr int kRows = kExpertTileRows;
  static constexpr int kColumns = sizeof(T) == 2 ? 128 : 64, kDepth = sizeof(T) == 2 ? 32 : 16;
  static constexpr int kTiles = kColumns / 16;
};

/// Row `row` of the places from `first` on, as the index of its first element.
template <typename T>
struct Operand {
  Span<const T> data;
  std::int64_t step;                 // elements of a row
  Span<const std::int32_t> pair_at;  // does not exist: rows are places
  int top_k;

  __device__ std::int64_t row_begin(std::int64_t place) const {
    return (pair_at.exists() ? pair_at[place] / top_k : place) * step;
  }
};

/// Copies rows x columns of a tile, where begin_of(row) is the element its columns begin at
/// (negative: a row of zeros) and only `columns` of them exist.
template <int kRows, int kColumns, typename T, typename F>
__device__ inline void copy_gathered(const SharedTile<T>& tile, const Span<const T>& from,
                                     std::int64_t columns, bool packed, const F& begin_of) {
  constexpr int kPack = 16 / static_cast<int>(sizeof(T)), kPacks = kColumns / kPack;
  if (packed) {
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kPacks; i += kThreads) {
      const int row = i / kPacks, column = i % kPacks * kPack;
      const std::int64_t begin = begin_of(row);
      copy_async<T>(tile.data, row * tile.stride + column, from, begin + column,
                    begin >= 0 && column < columns);
    }
    return;
  }
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kColumns; i += kThreads) {
    const int row = i / kColumns, column = i % kColumns;
    const std::int64_t begin = begin_of(row);
    T value = from_float<T>(0.0f);
    if (begin >= 0 && column < columns) value = from[begin + column];
    tile.data[row * tile.stride + column] = value;
  }
}

template <typename T, typename Out>
struct RowsProduct {
  Operand<T> a;
  Span<const T> b;
  Span<Out> out;  // [places, n]
  Span<const std::int32_t> begin, tile_begin;
  int experts;
  std::int64_t n, depth;
  bool packed;
};

/// The expert whose tiles hold number `tile`; `experts` when it is behind the last.
__device__ inline int expert_of(const Span<const std::int32_t>& tile_begin, int experts, int tile) {
  int low = 0, high = experts;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (tile_begin[middle + 1] <= tile)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

template <typename T, typename Out, bool kPlain>
__global__ void __launch_bounds__(kThreads) rows_product_kernel(RowsProduct<T, Out> p) {
  constexpr int kRows = Tile<T>::kRows, kColumns = Tile<T>::kColumns, kDepth = Tile<T>::kDepth;
  const int tile = static_cast<int>(blockIdx.x);
  const int expert = expert_of(p.tile_begin, p.experts, tile);
  if (expert == p.experts) return;
  SharedMemory memory;
  constexpr int kRowsOfB = kPlain ? kDepth : kColumns;
  const auto all_a = take_tile<T>(memory, kStages * kRows, kDepth);
  const auto all_b = take_tile<T>(memory, kStages * kRowsOfB, kPlain ? kColumns : kDepth);
  const std::int64_t place =
      p.begin[expert] + static_cast<std::int64_t>(tile - p.tile_begin[expert]) * kRows;
  const std::int64_t left = p.begin[expert + 1] - place;
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.y) * kColumns;
  const std::int64_t matrix = static_cast<std::int64_t>(expert) * p.n * p.depth;
  const auto copy_step = [&](std::int64_t step) {
    const std::int64_t k = step * kDepth;
    const int stage = static_cast<int>(step % kStages);
    const auto a = rows_of_tile(all_a, stage * kRows, kRows);
    const auto b = rows_of_tile(all_b, stage * kRowsOfB, kRowsOfB);
    copy_gathered<kRows, kDepth>(a, p.a.data, p.depth - k, p.packed, [&](int row) {
      return row < left ? p.a.row_begin(place + row) + k : std::int64_t{-1};
    });
    if constexpr (kPlain)
      copy_gathered<kDepth, kColumns>(b, p.b, p.n - column, p.packed, [&](int row) {
        return k + row < p.depth ? matrix + (k + row) * p.n + column : std::int64_t{-1};
      });
    else
      copy_gathered<kColumns, kDepth>(b, p.b, p.depth - k, p.packed, [&](int row) {
        return column + row < p.n ? matrix + (column + row) * p.depth + k : std::int64_t{-1};
      });
  };
  Strip<Tile<T>::kTiles> sums;
  sums.clear();
  const int strip = warp_of_thread() / 2 * 16, half = warp_of_thread() % 2 * (kColumns / 2);
  const std::int64_t steps = (p.depth + kDepth - 1) / kDepth;
  copy_step(0);
  commit_copies();
  for (std::int64_t step = 0; step < steps; ++step) {
    if (step + 1 < steps) copy_step(step + 1);
    commit_copies();
    wait_copies<1>();
    __syncthreads();
    const int stage = static_cast<int>(step % kStages);
    if constexpr (kPlain)
      multiply<Transpose::no, Transpose::no, kDepth>(sums, all_a, stage * kRows + strip, 0, all_b,
                                                     stage * kDepth, half);
    else
      multiply<Transpose::no, Transpose::yes, kDepth>(sums, all_a, stage * kRows + strip, 0, all_b,
                                                      stage * kColumns + half, 0);
    __syncthreads();
  }
  for (int i = 0; i < 4; ++i) {
    const int row = strip + strip_row(i);
    if (row >= left) continue;
    for (int n = 0; n < Tile<T>::kTiles; ++n) {
      const std::int64_t at = column + half + n * 8 + tile_column(i);
      if (at < p.n) p.out[(place + row) * p.n + at] = from_float<Out>(sums.tiles[n].sums[i]);
    }
  }
}

template <typename T>
struct WeightsProduct {
  Operand<T> a, b;
  Span<float> out;  // [E, m, n]
  Span<const std::int32_t> begin;
  std::int64_t m, n;
  bool packed;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) weights_product_kernel(WeightsProduct<T> p) {
  constexpr int kRows = Tile<T>::kRows, kColumns = Tile<T>::kColumns, kDepth = Tile<T>::kDepth;
  SharedMemory memory;
  const auto all_a = take_tile<T>(memory, kStages * kDepth, kRows);
  const auto all_b = take_tile<T>(memory, kStages * kDepth, kColumns);
  const std::int64_t expert = blockIdx.z, row = static_cast<std::int64_t>(blockIdx.y) * kRows;
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kColumns;
  const std::int64_t first = p.begin[expert], count = p.begin[expert + 1] - first;
  const auto copy_step = [&](std::int64_t step) {
    const std::int64_t k = step * kDepth;
    const int stage = static_cast<int>(step % kStages);
    const auto a = rows_of_tile(all_a, stage * kDepth, kDepth);
    const auto b = rows_of_tile(all_b, stage * kDepth, kDepth);
    copy_gathered<kDepth, kRows>(a, p.a.data, p.m - row, p.packed, [&](int i) {
      return k + i < count ? p.a.row_begin(first + k + i) + row : std::int64_t{-1};
    });
    copy_gathered<kDepth, kColumns>(b, p.b.data, p.n - column, p.packed, [&](int i) {
      return k + i < count ? p.b.row_begin(first + k + i) + column : std::int64_t{-1};
    });
  };
  Strip<Tile<T>::kTiles> sums;
  sums.clear();
  const int strip = warp_of_thread() / 2 * 16, half = warp_of_thread() % 2 * (kColumns / 2);
  const std::int64_t steps = (count + kDepth - 1) / kDepth;
  if (steps > 0) copy_step(0);
  commit_copies();
  for (std::int64_t step = 0; step < steps; ++step) {
    if (step + 1 < steps) copy_step(step + 1);
    commit_copies();
    wait_copies<1>();
    __syncthreads();
    const int stage = static_cast<int>(step % kStages);
    multiply<Transpose::yes, Transpose::no, kDepth>(sums, all_a, stage * kDepth, strip, all_b,
                                                    stage * kDepth, half);
    __syncthreads();
  }
  for (int i = 0; i < 4; ++i) {
    const std::int64_t at_row = row + strip + strip_row(i);
    if (at_row >= p.m) continue;
    for (int n = 0; n < Tile<T>::kTiles; ++n) {
      const std::int64_t at = column + half + n * 8 + tile_column(i);
      if (at < p.n) p.out[(expert * p.m + at_row) * p.n + at] = sums.tiles[n].sums[i];
    }
  }
}

template <typename T>
Operand<T> operand(const ExpertPlaces& places, const ExpertRows& x) {
  return {span<const T>(x.rows), x.rows.dim(1),
          x.by_token ? span<const std::int32_t>(places.pair_at) : Span<const std::int32_t>(),
          static_cast<int>(places.top_k)};
}

template <typename T>
bool are_packed(std::initializer_list<std::int64_t> sizes,
                std::initializer_list<const Tensor*> tensors) {
  return are_aligned(tensors) && std::all_of(sizes.begin(), sizes.end(), [](std::int64_t size) {
           return size % kWidest<T> == 0;
         });
}

template <typename T, typename Out>
void launch_rows_product(const ExpertPlaces& places, const ExpertRows& a, const Tensor& b,
                         bool plain, const Tensor& out) {
  constexpr int kColumns = Tile<T>::kColumns, kDepth = Tile<T>::kDepth;
  const std::int64_t n = out.dim(1), depth = a.rows.dim(1);
  const RowsProduct<T, Out> product{operand<T>(places, a),
                                    span<const T>(b),
                                    span<Out>(out),
                                    span<const std::int32_t>(places.begin),
                                    span<const std::int32_t>(places.tile_begin),
                                    static_cast<int>(places.experts),
                                    n,
                                    depth,
                                    are_packed<T>({n, depth}, {&a.rows, &b})};
  const std::size_t b_bytes =
      plain ? tile_bytes<T>(kStages * kDepth, kColumns) : tile_bytes<T>(kStages * kColumns, kDepth);
  // Every expert may end in a tile that is not full.
  const std::int64_t most = ceil_divide(places.pairs, kExpertTileRows) + places.experts;
  const LaunchShape shape{
      dim3(static_cast<unsigned>(most), static_cast<unsigned>(ceil_divide(n, kColumns))), kThreads,
      tile_bytes<T>(kStages * Tile<T>::kRows, kDepth) + b_bytes};
  launch("expert_rows_product", shape,
         plain ? rows_product_kernel<T, Out, true> : rows_product_kernel<T, Out, false>, product);
}

}  // namespace

void expert_rows_product(const ExpertPlaces& places, const ExpertRows& a, const Tensor& b,
                         bool plain, const Tensor& out) {
  if (out.numel() == 0) return;
  if (b.numel() == 0) return out.fill(0);
  if (b.dtype() == DType::f32)
    launch_rows_product<float, float>(places, a, b, plain, out);
  else if (out.dtype() == DType::f32)
    launch_rows_product<BFloat16, float>(places, a, b, plain, out);
  else
    launch_rows_product<BFloat16, BFloat16>(places, a, b, plain, out);
}

void expert_weights_product(const ExpertPlaces& places, const ExpertRows& a, const ExpertRows& b,
                            const Tensor& out) {
  if (out.numel() == 0) return;
  const std::int64_t m = out.dim(1), n = out.dim(2);
  dispatch_storage(a.rows.dtype(), "experts", [&]<typename T>() {
    const WeightsProduct<T> product{operand<T>(places, a),
                                    operand<T>(places, b),
                                    span<float>(out),
                                    span<const std::int32_t>(places.begin),
                                    m,
                                    n,
                                    are_packed<T>({m, n}, {&a.rows, &b.rows})};
    launch("expert_weights_product",
           {dim3(static_cast<unsigned>(ceil_divide(n, Tile<T>::kColumns)),
                 static_cast<unsigned>(ceil_divide(m, Tile<T>::kRows)),
                 static_cast<unsigned>(places.experts)),
            kThreads,
            tile_bytes<T>(kStages * Tile<T>::kDepth, Tile<T>::kRows) +
                tile_bytes<T>(kStages * Tile<T>::kDepth, Tile<T>::kColumns)},
           weights_product_kernel<T>, product);
  });
}

}  // namespace lectern::cuda
