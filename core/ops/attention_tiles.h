// Register tiles of the CPU attention kernels: vectors, exp2, the one matrix micro-kernel, packing.
//
// Everything is built on the vector extension of GCC and clang, so the same lines become AVX-512,
// AVX2, SSE or NEON code. A micro-kernel keeps kRows x (1..kColumns) vectors of accumulators in
// registers: 8 x 3 of the 32 registers of AVX-512, 4 x 3 of 16 elsewhere.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace lectern::attention_tiles {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
inline constexpr int kRows = 8;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
inline constexpr int kRows = 4;
#else
inline constexpr int kVectorBytes = 16;
inline constexpr int kRows = 4;
#endif
inline constexpr int kColumns = 3;
/// Query rows that one task handles.
inline constexpr int kTileRows = 64;
static_assert(kTileRows % kRows == 0);

template <typename T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float Type __attribute__((vector_size(kVectorBytes)));
  typedef std::uint32_t Integer __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorOf<double> {
  typedef double Type __attribute__((vector_size(kVectorBytes)));
  typedef std::uint64_t Integer __attribute__((vector_size(kVectorBytes)));
};
template <typename T>
using Vector = typename VectorOf<T>::Type;

template <typename T>
inline constexpr int kLanes = kVectorBytes / int(sizeof(T));
/// Keys in one packed panel.
template <typename T>
inline constexpr int kPanel = kColumns* kLanes<T>;

constexpr std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

template <typename T>
inline Vector<T> load(const T* p) {
  Vector<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <typename T>
inline void store(T* p, const Vector<T>& v) {
  std::memcpy(p, &v, sizeof v);
}
template <typename T>
inline Vector<T> splat(T x) {
  return x - Vector<T>{};  // x - 0 is x for every x; 0 + x would turn -0 into 0
}
template <typename T>
inline Vector<T> maximum(const Vector<T>& a, const Vector<T>& b) {
  return a > b ? a : b;
}

/// Lane i of the result is lane (i + step) mod lanes.
template <typename T, int kStep>
inline Vector<T> rotate(const Vector<T>& v) {
#if defined(__clang__)
  Vector<T> rotated;
  for (int i = 0; i < kLanes<T>; ++i) rotated[i] = v[(i + kStep) % kLanes<T>];
  return rotated;
#else
  typename VectorOf<T>::Integer source;
  for (int i = 0; i < kLanes<T>; ++i) source[i] = (i + kStep) % kLanes<T>;
  return __builtin_shuffle(v, source);
#endif
}
template <typename T, int kStep = kLanes<T> / 2>
inline T horizontal_max(const Vector<T>& v) {
  if constexpr (kStep == 0)
    return v[0];
  else
    return horizontal_max<T, kStep / 2>(maximum<T>(v, rotate<T, kStep>(v)));
}
template <typename T, int kStep = kLanes<T> / 2>
inline T horizontal_sum(const Vector<T>& v) {
  if constexpr (kStep == 0)
    return v[0];
  else
    return horizontal_sum<T, kStep / 2>(v + rotate<T, kStep>(v));
}

template <typename T>
inline T dot(const T* a, const T* b, std::int64_t n) {
  Vector<T> sums{};
  std::int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) sums += load(a + i) * load(b + i);
  T sum = horizontal_sum<T>(sums);
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// The first `count` lanes, zero in the others.
template <typename T>
inline Vector<T> first_lanes(const Vector<T>& v, std::int64_t count) {
  if (count >= kLanes<T>) return v;
  using Integer = typename VectorOf<T>::Integer;
  Integer lane;
  for (int i = 0; i < kLanes<T>; ++i) lane[i] = i;
  return lane < static_cast<std::remove_reference_t<decltype(lane[0])>>(count) ? v : Vector<T>{};
}

/// 2^x for x <= 0 or a little above, lane by lane; 0 where the result would be subnormal, NaN stays
/// NaN. Scores are kept in units of log 2, which saves the range reduction of e^x.
template <typename T>
inline __attribute__((always_inline)) Vector<T> exp2_vector(const Vector<T>& x) {
  constexpr bool kFloat = std::is_same_v<T, float>;
  // Adding 1.5 * 2^(mantissa bits) rounds to an integer n and leaves n in the low mantissa bits.
  constexpr T kRound = kFloat ? T(12582912.0) : T(6755399441055744.0);
  constexpr int kMantissaBits = std::numeric_limits<T>::digits - 1;
  const Vector<T> shifted = x + kRound;
  const Vector<T> r = x - (shifted - kRound);
  Vector<T> value;
  if constexpr (kFloat) {  // Lawson fit of 2^r on [-1/2, 1/2]: 1.9e-9 relative
    value = T(1.5345806e-4) * r + T(1.3399931e-3);
    value = value * r + T(9.6184891e-3);
    value = value * r + T(5.5503286e-2);
    value = value * r + T(0.24022646);
    value = value * r + T(0.69314718);
    value = value * r + T(1);
  } else {  // Taylor: (r ln 2)^14 / 14! < 5e-18
    constexpr T kLn2 = T(0.693147180559945309417232121458);
    const Vector<T> t = r * kLn2;
    value = splat(T(1));
#pragma GCC unroll 13
    for (int k = 13; k >= 1; --k) value = value * t * (T(1) / T(k)) + T(1);
  }
  // The low bits of kRound's pattern vanish in the shift; what remains is n in the exponent field.
  using Integer = typename VectorOf<T>::Integer;
  Integer bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  const auto one = std::bit_cast<std::conditional_t<kFloat, std::uint32_t, std::uint64_t>>(T(1));
  bits = (bits << kMantissaBits) + one;
  Vector<T> scale;
  std::memcpy(&scale, &bits, sizeof scale);
  constexpr T kLowest = T(std::numeric_limits<T>::min_exponent - 1);
  return x < kLowest ? Vector<T>{} : value * scale;
}

/// accumulators[r][v] += sum_k a[r * row_stride + k * depth_stride] * b[k * b_stride + lanes of v].
/// The only matrix product here: a is read one scalar at a time and broadcast, b in vectors. With
/// constants for the strides of a (std::integral_constant) every address is an immediate.
template <typename T, int kVectors, typename RowStride, typename DepthStride>
inline __attribute__((always_inline)) void multiply(std::int64_t depth, const T* a,
                                                    RowStride row_stride, DepthStride depth_stride,
                                                    const T* b, std::int64_t b_stride,
                                                    Vector<T> (&accumulators)[kRows][kVectors]) {
  for (std::int64_t k = 0; k < depth; ++k) {
    Vector<T> columns[kVectors];
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) columns[v] = load(b + v * kLanes<T>);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vector<T> value = splat(a[r * row_stride]);
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) accumulators[r][v] += value * columns[v];
    }
    a += depth_stride;
    b += b_stride;
  }
}

template <int kValue>
using Constant = std::integral_constant<std::int64_t, kValue>;

/// Calls f(Constant<n>, v) for consecutive chunks of n <= kColumns vectors that cover 0..vectors-1.
template <typename F>
inline void for_column_chunks(std::int64_t vectors, F&& f) {
  std::int64_t v = 0;
  while (vectors - v >= 3 && vectors - v != 4) {
    f(Constant<3>{}, v);
    v += 3;
  }
  for (; vectors - v >= 2; v += 2) f(Constant<2>{}, v);
  if (v < vectors) f(Constant<1>{}, v);
}

/// c[r] = c[r] * factor[r] + sum_k a[r][k] b[k] for kRows rows of kVectors vectors; a null factor
/// is 1. Not inlined: in a larger function GCC runs out of registers and spills the accumulators.
template <typename T, int kVectors, typename RowStride, typename DepthStride>
__attribute__((noinline)) void add_tile(std::int64_t depth, const T* a, RowStride row_stride,
                                        DepthStride depth_stride, const T* b, std::int64_t b_stride,
                                        const T* factor, T* c, std::int64_t c_stride) {
  Vector<T> sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = load(c + r * c_stride + v * kLanes<T>);
      if (factor != nullptr) sums[r][v] *= factor[r];
    }
  multiply<T, kVectors>(depth, a, row_stride, depth_stride, b, b_stride, sums);
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) store(c + r * c_stride + v * kLanes<T>, sums[r][v]);
}

/// add_tile over rows of `vectors` vectors.
template <typename T, typename RowStride, typename DepthStride>
inline void add_tiles(std::int64_t depth, const T* a, RowStride row_stride,
                      DepthStride depth_stride, const T* b, const T* factor, T* c,
                      std::int64_t stride) {
  for_column_chunks(stride / kLanes<T>, [&]<typename Count>(Count, std::int64_t first) {
    add_tile<T, int(Count::value)>(depth, a, row_stride, depth_stride, b + first * kLanes<T>,
                                   stride, factor, c + first * kLanes<T>, stride);
  });
}

/// out[r * stride + key] = (out, if `accumulate`, +) query[r] . key for kRows packed queries and
/// one panel of keys.
template <typename T, int kVectors, typename Stride>
__attribute__((noinline)) void score_panel(const T* query, const T* panel, std::int64_t dim,
                                           bool accumulate, T* out, Stride stride) {
  Vector<T> sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v)
      sums[r][v] = accumulate ? load(out + r * stride + v * kLanes<T>) : Vector<T>{};
  multiply<T, kVectors>(dim, query, Constant<1>{}, Constant<kRows>{}, panel, kPanel<T>, sums);
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) store(out + r * stride + v * kLanes<T>, sums[r][v]);
}

/// destination[c * destination_stride + r] = factor * source[r * source_stride + c]
template <typename T>
inline void transpose(const T* source, std::int64_t rows, std::int64_t columns,
                      std::int64_t source_stride, T* destination, std::int64_t destination_stride,
                      T factor) {
  std::int64_t r = 0;
  if constexpr (std::is_same_v<T, float>) {
    typedef float Quad __attribute__((vector_size(16)));
    for (; r + 4 <= rows; r += 4) {
      const float* s = source + r * source_stride;
      for (std::int64_t c = 0; c + 4 <= columns; c += 4) {
        Quad q[4];
        for (int i = 0; i < 4; ++i) {
          std::memcpy(&q[i], s + i * source_stride + c, sizeof(Quad));
          q[i] *= factor;
        }
        const Quad a = __builtin_shufflevector(q[0], q[1], 0, 4, 1, 5);
        const Quad b = __builtin_shufflevector(q[2], q[3], 0, 4, 1, 5);
        const Quad d = __builtin_shufflevector(q[0], q[1], 2, 6, 3, 7);
        const Quad e = __builtin_shufflevector(q[2], q[3], 2, 6, 3, 7);
        const Quad out[4] = {
            __builtin_shufflevector(a, b, 0, 1, 4, 5), __builtin_shufflevector(a, b, 2, 3, 6, 7),
            __builtin_shufflevector(d, e, 0, 1, 4, 5), __builtin_shufflevector(d, e, 2, 3, 6, 7)};
        for (int i = 0; i < 4; ++i)
          std::memcpy(destination + (c + i) * destination_stride + r, &out[i], sizeof(Quad));
      }
      for (std::int64_t c = columns / 4 * 4; c < columns; ++c)
        for (int i = 0; i < 4; ++i)
          destination[c * destination_stride + r + i] = factor * s[i * source_stride + c];
    }
  }
  for (; r < rows; ++r)
    for (std::int64_t c = 0; c < columns; ++c)
      destination[c * destination_stride + r] = factor * source[r * source_stride + c];
}

/// Rows of `dim` values -> panels [ceil(rows / width)][dim][width], transposed inside a panel; rows
/// that do not exist are zero. Width kPanel for the vector side of a product, kRows for the other.
template <typename T>
inline void pack_panels(const T* source, std::int64_t rows, std::int64_t source_stride,
                        std::int64_t dim, std::int64_t width, T factor, T* panels) {
  for (std::int64_t first = 0; first < rows; first += width) {
    const std::int64_t count = std::min(width, rows - first);
    T* panel = panels + first * dim;
    if (count < width) std::fill(panel, panel + dim * width, T(0));
    transpose(source + first * source_stride, count, dim, source_stride, panel, width, factor);
  }
}

/// Rows of `dim` values -> factor * [padded_rows][padded_dim], zero outside.
template <typename T>
inline void pack_rows(const T* source, std::int64_t rows, std::int64_t source_stride,
                      std::int64_t dim, std::int64_t padded_rows, std::int64_t padded_dim, T factor,
                      T* destination) {
  for (std::int64_t r = 0; r < rows; ++r) {
    T* row = destination + r * padded_dim;
    for (std::int64_t c = 0; c < dim; ++c) row[c] = factor * source[r * source_stride + c];
    std::fill(row + dim, row + padded_dim, T(0));
  }
  std::fill(destination + rows * padded_dim, destination + padded_rows * padded_dim, T(0));
}

/// Cuts one block of memory into aligned pieces; with a null base it only counts.
template <typename T>
class Carver {
 public:
  explicit Carver(T* base) : base_(base) {}
  T* take(std::int64_t count) {
    T* piece = base_ == nullptr ? nullptr : base_ + used_;
    used_ += round_up(count, 64 / std::int64_t(sizeof(T)));
    return piece;
  }
  std::int64_t used() const { return used_; }

 private:
  T* base_;
  std::int64_t used_ = 0;
};

}  // namespace lectern::attention_tiles
