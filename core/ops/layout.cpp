#include "core/ops/layout.h"

#include "core/parallel.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace lectern {
namespace {

/// `count` blocks of bytes, `from_pitch` and `to_pitch` bytes apart; a pitch of 0 repeats a block.
struct BlockCopy {
  std::int64_t count, block, from_pitch, to_pitch;
};

void copy_blocks(const void* from, void* to, BlockCopy copy) {
  const char* source = static_cast<const char*>(from);
  char* target = static_cast<char*>(to);
  parallel_for(copy.count * copy.block, 1 << 16, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t at = begin; at < end;) {
      const std::int64_t block = at / copy.block, offset = at % copy.block;
      const std::int64_t length = std::min(copy.block - offset, end - at);
      std::memcpy(target + block * copy.to_pitch + offset,
                  source + block * copy.from_pitch + offset, static_cast<std::size_t>(length));
      at += length;
    }
  });
}

/// Bytes of one step along `dim`.
std::int64_t step_bytes(const Tensor& x, int dim) {
  std::int64_t bytes = static_cast<std::int64_t>(size_of(x.dtype()));
  for (int i = dim + 1; i < x.ndim(); ++i) bytes *= x.dim(i);
  return bytes;
}

std::int64_t count_before(const Tensor& x, int dim) {
  std::int64_t count = 1;
  for (int i = 0; i < dim; ++i) count *= x.dim(i);
  return count;
}

void copy_into_cpu(const Tensor& x, const Tensor& out, int dim, std::int64_t at) {
  if (x.numel() == 0) return;
  const std::int64_t step = step_bytes(x, dim), block = step * x.dim(dim);
  copy_blocks(x.raw(), static_cast<char*>(out.raw()) + at * step,
              {count_before(x, dim), block, block, step * out.dim(dim)});
}

void copy_from_cpu(const Tensor& x, const Tensor& out, int dim, std::int64_t begin) {
  if (out.numel() == 0) return;
  const std::int64_t step = step_bytes(x, dim), block = step * out.dim(dim);
  copy_blocks(static_cast<const char*>(x.raw()) + begin * step, out.raw(),
              {count_before(x, dim), block, step * x.dim(dim), block});
}

void repeat_cpu(const Tensor& x, const Tensor& out) {
  if (out.numel() == 0) return;
  const auto block = static_cast<std::int64_t>(x.bytes());
  copy_blocks(x.raw(), out.raw(), {out.dim(0), block, 0, block});
}

void zero_cpu(const Tensor& out) {
  char* bytes = static_cast<char*>(out.raw());
  parallel_for(static_cast<std::int64_t>(out.bytes()), 1 << 18,
               [=](std::int64_t begin, std::int64_t end) {
                 std::memset(bytes + begin, 0, static_cast<std::size_t>(end - begin));
               });
}

/// A permutation of a contiguous tensor: sizes of the output and strides of the input in the
/// output's order, where dimensions that stay neighbours are one.
struct Permutation {
  std::array<std::int64_t, Shape::kMaxDims> size{}, stride{};
  int ndim = 0;

  Permutation(const Tensor& x, std::span<const int> dims) {
    for (const int dim : dims) {
      const std::int64_t n = x.dim(dim), step = x.stride(dim);
      if (n == 1) continue;
      if (ndim > 0 && stride[index(ndim - 1)] == n * step) {
        size[index(ndim - 1)] *= n;
        stride[index(ndim - 1)] = step;
      } else {
        size[index(ndim)] = n;
        stride[index(ndim++)] = step;
      }
    }
  }
  static std::size_t index(int i) { return static_cast<std::size_t>(i); }

  /// Where in the input line `line` of the output starts; a line is one run of the last dimension.
  std::int64_t input_offset(std::int64_t line) const {
    std::int64_t offset = 0;
    for (int i = ndim - 2; i >= 0; --i) {
      offset += line % size[index(i)] * stride[index(i)];
      line /= size[index(i)];
    }
    return offset;
  }
};

/// The last output dimension strides through the input: lines go in groups that are neighbours in
/// the input, so that a cache line once read serves all of them.
template <typename T>
void permute_strided(const T* from, T* to, const Permutation& p, std::int64_t lines) {
  constexpr std::int64_t kTile = 16;
  const std::int64_t length = p.size[Permutation::index(p.ndim - 1)];
  const std::int64_t step = p.stride[Permutation::index(p.ndim - 1)];
  const std::int64_t grain = 1 + (1 << 14) / length;
  parallel_for(lines, grain, [=, &p](std::int64_t begin, std::int64_t end) {
    for (std::int64_t first = begin; first < end; first += kTile) {
      const std::int64_t count = std::min(kTile, end - first);
      std::array<std::int64_t, kTile> offset;
      for (std::int64_t k = 0; k < count; ++k)
        offset[static_cast<std::size_t>(k)] = p.input_offset(first + k);
      for (std::int64_t at = 0; at < length; at += kTile) {
        const std::int64_t stop = std::min(length, at + kTile);
        for (std::int64_t k = 0; k < count; ++k) {
          const T* source = from + offset[static_cast<std::size_t>(k)];
          T* target = to + (first + k) * length;
          for (std::int64_t i = at; i < stop; ++i) target[i] = source[i * step];
        }
      }
    }
  });
}

template <typename T>
void permute_as(const Tensor& x, std::span<const int> dims, const Tensor& out) {
  const T* from = static_cast<const T*>(x.raw());
  T* to = static_cast<T*>(out.raw());
  const Permutation p(x, dims);
  if (p.ndim == 0) {
    *to = *from;
    return;
  }
  const std::int64_t length = p.size[Permutation::index(p.ndim - 1)];
  const std::int64_t lines = out.numel() / length;
  if (p.stride[Permutation::index(p.ndim - 1)] != 1) {
    permute_strided(from, to, p, lines);
    return;
  }
  const std::int64_t grain = 1 + (1 << 14) / length;
  parallel_for(lines, grain, [=, &p](std::int64_t begin, std::int64_t end) {
    for (std::int64_t line = begin; line < end; ++line)
      std::copy_n(from + p.input_offset(line), length, to + line * length);
  });
}

void permute_cpu(const Tensor& x, std::span<const int> dims, const Tensor& out) {
  if (out.numel() == 0) return;
  switch (size_of(x.dtype())) {
    case 8:
      return permute_as<std::uint64_t>(x, dims, out);
    case 4:
      return permute_as<std::uint32_t>(x, dims, out);
    case 2:
      return permute_as<std::uint16_t>(x, dims, out);
    default:
      return permute_as<std::uint8_t>(x, dims, out);
  }
}

int resolve(int dim, const Tensor& x, std::string_view operation) {
  const int index = dim < 0 ? dim + x.ndim() : dim;
  if (index < 0 || index >= x.ndim())
    fail<ShapeError>(
        fmt::format("{}: dim must be a dimension of {}, got {}", operation, x.describe(), dim));
  return index;
}

}  // namespace

KernelTable<LayoutKernels>& layout_table() {
  static KernelTable<LayoutKernels> table(
      "layout", {copy_into_cpu, copy_from_cpu, repeat_cpu, permute_cpu, zero_cpu});
  return table;
}

Tensor slice(const Tensor& x, int dim, std::int64_t begin, std::int64_t end) {
  const int index = resolve(dim, x, "slice");
  const Tensor rows = x.slice(index, begin, end);
  if (rows.is_contiguous()) return rows;
  const Tensor out = Tensor::empty(rows.shape(), x.dtype(), x.device());
  layout_table().at(x.device()).copy_from(x.contiguous(), out, index, begin);
  return out;
}

Tensor pad_slice(const Tensor& x, const Shape& shape, int dim, std::int64_t begin) {
  const int index = resolve(dim, x, "pad_slice");
  Shape expected = x.shape();
  if (shape.ndim() == x.ndim()) expected[index] = shape[index];
  if (shape != expected || begin < 0 || begin > shape[index] - x.dim(index))
    fail<ShapeError>(
        fmt::format("pad_slice: shape must hold x at {} of dimension {}, got {} for {}", begin,
                    index, shape, x.describe()));
  const Tensor out = Tensor::empty(shape, x.dtype(), x.device());
  const LayoutKernels& kernels = layout_table().at(x.device());
  kernels.zero(out);
  kernels.copy_into(x.contiguous(), out, index, begin);
  return out;
}

Tensor concat(const std::vector<Tensor>& tensors, int dim) {
  if (tensors.empty()) fail<ShapeError>("concat: tensors must be 1 or more, got 0");
  const Tensor& first = tensors[0];
  const int index = resolve(dim, first, "concat");
  Shape shape = first.shape();
  shape[index] = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::string name = fmt::format("tensor {}", i);
    check_ndim(tensors[i], first.ndim(), "concat", name);
    check_dtype(tensors[i], first.dtype(), "concat", name);
    check_device(tensors[i], first, "concat", name);
    Shape expected = first.shape();
    expected[index] = tensors[i].dim(index);
    check_shape(tensors[i], expected, "concat", name);
    shape[index] += tensors[i].dim(index);
  }
  const Tensor out = Tensor::empty(shape, first.dtype(), first.device());
  std::int64_t at = 0;
  for (const Tensor& tensor : tensors) {
    layout_table().at(out.device()).copy_into(tensor.contiguous(), out, index, at);
    at += tensor.dim(index);
  }
  return out;
}

Tensor repeat_leading(const Tensor& x, std::int64_t n) {
  if (n < 0) fail<ShapeError>(fmt::format("repeat_leading: n must be 0 or more, got {}", n));
  Shape shape{n};
  for (const std::int64_t size : x.shape()) shape.push_back(size);
  const Tensor out = Tensor::empty(shape, x.dtype(), x.device());
  layout_table().at(x.device()).repeat(x.contiguous(), out);
  return out;
}

Tensor permute(const Tensor& x, std::span<const int> dims) {
  Shape shape;
  unsigned seen = 0;
  bool valid = static_cast<int>(dims.size()) == x.ndim();
  for (std::size_t i = 0; valid && i < dims.size(); ++i) {
    valid = dims[i] >= 0 && dims[i] < x.ndim() && (seen >> dims[i] & 1u) == 0;
    if (!valid) break;
    seen |= 1u << dims[i];
    shape.push_back(x.dim(dims[i]));
  }
  if (!valid)
    fail<ShapeError>(
        fmt::format("permute: dims must be a permutation of the dimensions of {}, got "
                    "[{}]",
                    x.describe(), fmt::join(dims, ", ")));
  const Tensor out = Tensor::empty(shape, x.dtype(), x.device());
  layout_table().at(x.device()).permute(x.contiguous(), dims, out);
  return out;
}

}  // namespace lectern
