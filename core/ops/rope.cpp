#include "core/ops/rope.h"

#include "core/ops/rope_math.h"
#include "core/parallel.h"

#include <cmath>
#include <map>
#include <mutex>

namespace lectern {
namespace {

constexpr std::int64_t kCachedPositions = 1 << 17;
constexpr std::size_t kCachedTables = 8;

/// One row of a table: cosines of all frequencies, then sines.
template <typename T>
void fill_rotation(double theta, std::int64_t half, std::int64_t position, T* row) {
  for (std::int64_t j = 0; j < half; ++j) {
    double angle = 0;
    if constexpr (std::is_same_v<T, float>) {
      // Rounded to float before the cosine, as the reference does.
      const float rounded =
          static_cast<float>(position) * rope_math::inverse_frequency(theta, j, half);
      angle = rounded;
    } else {
      angle = static_cast<double>(position) *
              std::pow(theta, -static_cast<double>(2 * j) / static_cast<double>(2 * half));
    }
    row[j] = static_cast<T>(std::cos(angle));
    row[half + j] = static_cast<T>(std::sin(angle));
  }
}

/// Rows 0..rows-1 (rounded up to a power of two) of the cached table [rows, head_dim].
template <typename T>
Tensor cached_rotations(double theta, std::int64_t head_dim, std::int64_t rows) {
  static std::mutex mutex;
  static std::map<std::pair<double, std::int64_t>, Tensor> tables;
  const std::lock_guard lock(mutex);
  if (tables.size() >= kCachedTables && tables.count({theta, head_dim}) == 0) tables.clear();
  Tensor& table = tables[{theta, head_dim}];
  const std::int64_t known = table.defined() ? table.dim(0) : 0;
  if (known >= rows) return table;
  std::int64_t size = 256;
  while (size < rows) size *= 2;
  const Tensor grown = Tensor::empty({size, head_dim}, kDTypeOf<T>);
  T* data = grown.data<T>();
  if (known > 0) std::copy_n(table.data<T>(), known * head_dim, data);
  parallel_for(size - known, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = known + begin; i < known + end; ++i)
      fill_rotation(theta, head_dim / 2, i, data + i * head_dim);
  });
  return table = grown;
}

template <typename T>
void rotate_heads(const T* x, std::int64_t heads, std::int64_t half, const T* rotation, T sign,
                  T* out) {
  for (std::int64_t h = 0; h < heads; ++h, x += 2 * half, out += 2 * half)
    for (std::int64_t j = 0; j < half; ++j) {
      const auto pair =
          rope_math::rotate(x[j], x[half + j], rotation[j], sign * rotation[half + j]);
      out[j] = pair.low;
      out[half + j] = pair.high;
    }
}

template <typename T>
void rope_rows(const Tensor& qkv, const RopeArgs& args, bool inverse, const Tensor& out) {
  const std::int64_t tokens = qkv.dim(1), rows = qkv.dim(0) * tokens, columns = qkv.dim(2);
  const std::int64_t half = args.head_dim / 2, rotated = args.heads + args.kv_heads;
  const std::int32_t* positions =
      args.positions.defined() ? args.positions.data<std::int32_t>() : nullptr;
  const auto position = [=, offset = args.offset](std::int64_t row) -> std::int64_t {
    return positions != nullptr ? positions[row] : offset + row % tokens;
  };
  std::int64_t last = 0;
  for (std::int64_t i = 0; i < (positions != nullptr ? rows : tokens); ++i)
    last = std::max(last, position(i));
  // Far positions would make the table huge: those calls compute one row a token.
  const bool cached = last < kCachedPositions;
  Tensor table;
  if (cached) {
    table = cached_rotations<T>(args.theta, args.head_dim, last + 1);
  } else {
    table = Tensor::empty({rows, args.head_dim}, kDTypeOf<T>);
    for (std::int64_t i = 0; i < rows; ++i)
      fill_rotation(args.theta, half, position(i), table.data<T>() + i * args.head_dim);
  }
  const T* rotations = table.data<T>();
  const T* from = qkv.data<T>();
  T* to = out.data<T>();
  const std::int64_t grain = std::max<std::int64_t>(1, (1 << 14) / columns);
  parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const T* rotation = rotations + (cached ? position(i) : i) * args.head_dim;
      rotate_heads(from + i * columns, rotated, half, rotation, inverse ? T(-1) : T(1),
                   to + i * columns);
      if (to != from)
        std::copy(from + i * columns + rotated * args.head_dim, from + (i + 1) * columns,
                  to + i * columns + rotated * args.head_dim);
    }
  });
}

void forward_cpu(const Tensor& qkv, const RopeArgs& args, bool inverse, const Tensor& out) {
  dispatch_floating(qkv.dtype(), "rope",
                    [&]<typename T>() { rope_rows<T>(qkv, args, inverse, out); });
}

void check(const Tensor& qkv, const RopeArgs& args) {
  if (args.heads < 1 || args.kv_heads < 0 || args.head_dim < 2 || args.head_dim % 2 != 0)
    fail<ConfigError>(fmt::format(
        "rope: head_dim must be even and heads positive, got heads {}, kv_heads {}, head_dim {}",
        args.heads, args.kv_heads, args.head_dim));
  if (!(args.theta > 0) || !std::isfinite(args.theta))
    fail<ConfigError>(fmt::format("rope: theta must be positive and finite, got {}", args.theta));
  check_ndim(qkv, 3, "rope", "qkv");
  check_shape(qkv, {qkv.dim(0), qkv.dim(1), (args.heads + 2 * args.kv_heads) * args.head_dim},
              "rope", "qkv");
  check_contiguous(qkv, "rope", "qkv");
  if (args.offset < 0)
    fail<ConfigError>(fmt::format("rope: offset must be at least 0, got {}", args.offset));
  if (!args.positions.defined()) return;
  check_shape(args.positions, {qkv.dim(0), qkv.dim(1)}, "rope", "positions");
  check_dtype(args.positions, DType::i32, "rope", "positions");
  check_contiguous(args.positions, "rope", "positions");
  if (args.positions.device().type != DeviceType::cpu) return;
  const std::int32_t* p = args.positions.data<std::int32_t>();
  for (std::int64_t i = 0; i < args.positions.numel(); ++i)
    if (p[i] < 0)
      fail<ConfigError>(fmt::format("rope: positions must be at least 0, got {} in row {} token {}",
                                    p[i], i / qkv.dim(1), i % qkv.dim(1)));
}

Tensor rotated_copy(const Tensor& qkv, const RopeArgs& args, bool inverse) {
  check(qkv, args);
  const Tensor out = Tensor::empty_like(qkv);
  if (qkv.numel() > 0) rope_table().at(qkv.device()).forward(qkv, args, inverse, out);
  return out;
}

}  // namespace

KernelTable<RopeKernels>& rope_table() {
  static KernelTable<RopeKernels> instance("rope", {forward_cpu});
  return instance;
}

Tensor rope(const Tensor& qkv, const RopeArgs& args) { return rotated_copy(qkv, args, false); }

Tensor rope_backward(const Tensor& grad_out, const RopeArgs& args) {
  return rotated_copy(grad_out.contiguous(), args, true);
}

void rope_in_place(const Tensor& qkv, const RopeArgs& args) {
  check(qkv, args);
  if (qkv.numel() == 0) return;
  rope_table().at(qkv.device()).forward(qkv, args, false, qkv);
  qkv.mark_modified();
}

}  // namespace lectern
