#include "core/tensor.h"

#include "core/convert_math.h"
#include "core/device_backend.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace lectern {
namespace {

Shape contiguous_strides(const Shape& shape) {
  Shape strides = shape;
  // An empty tensor has no element to step to, and its other sizes may overflow.
  const bool is_empty = shape.numel() == 0;
  std::int64_t step = 1;
  for (int i = shape.ndim() - 1; i >= 0; --i) {
    strides[i] = step;
    if (!is_empty) step *= shape[i];
  }
  return strides;
}

/// Sizes may come from a file: they must not be negative, nor their product overflow.
void check_sizes(const Shape& shape, DType dtype) {
  auto bytes = static_cast<std::int64_t>(size_of(dtype));
  bool empty = false, too_large = false;
  for (const std::int64_t size : shape) {
    if (size < 0) fail<ShapeError>(fmt::format("Tensor: sizes must be 0 or more, got {}", shape));
    empty = empty || size == 0;
    too_large = __builtin_mul_overflow(bytes, std::max<std::int64_t>(size, 1), &bytes) || too_large;
  }
  if (too_large && !empty)
    fail<MemoryError>(fmt::format("Tensor: {} {} does not fit in memory", name_of(dtype), shape));
}

/// Converts one element; bf16 goes through float.
template <typename To, typename From>
To convert(From value) {
  if constexpr (std::is_same_v<From, BFloat16>) {
    return convert<To>(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, BFloat16>) {
    return BFloat16(static_cast<float>(value));
  } else {
    return static_cast<To>(value);
  }
}

template <typename To, typename From>
void copy_strided(To* to, const From* from, const Shape& shape, const Shape& to_strides,
                  const Shape& from_strides, int dim) {
  if (dim == shape.ndim()) {
    *to = convert<To>(*from);
    return;
  }
  const std::int64_t n = shape[dim], step_to = to_strides[dim], step_from = from_strides[dim];
  if (dim == shape.ndim() - 1) {
    if constexpr (std::is_same_v<To, From>) {
      if (step_to == 1 && step_from == 1) {
        std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(To));
        return;
      }
    }
    if constexpr (std::is_same_v<To, BFloat16> && std::is_same_v<From, float>) {
      if (step_to == 1 && step_from == 1) return convert_math::row_to_bf16(from, n, to);
    }
    if constexpr (std::is_same_v<To, float> && std::is_same_v<From, BFloat16>) {
      if (step_to == 1 && step_from == 1) return convert_math::row_to_f32(from, n, to);
    }
    for (std::int64_t i = 0; i < n; ++i) to[i * step_to] = convert<To>(from[i * step_from]);
    return;
  }
  for (std::int64_t i = 0; i < n; ++i)
    copy_strided(to + i * step_to, from + i * step_from, shape, to_strides, from_strides, dim + 1);
}

}  // namespace

std::string to_string(const Shape& shape) {
  return fmt::format("[{}]", fmt::join(shape.begin(), shape.end(), ", "));
}

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  check_sizes(shape, dtype);
  Tensor out;
  out.shape_ = shape;
  out.strides_ = contiguous_strides(shape);
  out.dtype_ = dtype;
  out.storage_ =
      std::make_shared<Storage>(static_cast<std::size_t>(shape.numel()) * size_of(dtype), device);
  return out;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor out = empty(shape, dtype, device);
  if (out.numel() == 0) return out;
  if (device.type == DeviceType::cpu)
    std::memset(out.raw(), 0, out.bytes());
  else
    device_backend(device).zero(out.raw(), out.bytes(), device);
  return out;
}

Tensor Tensor::full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor out = empty(shape, dtype, device);
  out.fill(value);
  return out;
}

Tensor Tensor::empty_like(const Tensor& other) {
  return empty(other.shape(), other.dtype(), other.device());
}

Tensor Tensor::zeros_like(const Tensor& other) {
  return zeros(other.shape(), other.dtype(), other.device());
}

Tensor Tensor::wrap(void* data, const Shape& shape, DType dtype,
                    std::shared_ptr<const void> owner) {
  Tensor out;
  out.shape_ = shape;
  out.strides_ = contiguous_strides(shape);
  out.dtype_ = dtype;
  out.storage_ = std::make_shared<Storage>(
      data, static_cast<std::size_t>(shape.numel()) * size_of(dtype), Device{}, std::move(owner));
  return out;
}

std::int64_t Tensor::dim(int i) const {
  const int index = i < 0 ? i + ndim() : i;
  if (index < 0 || index >= ndim())
    fail<ShapeError>(fmt::format("Tensor: dimension {} is out of range of {}", i, describe()));
  return shape_[index];
}

std::int64_t Tensor::stride(int i) const {
  const int index = i < 0 ? i + ndim() : i;
  if (index < 0 || index >= ndim())
    fail<ShapeError>(fmt::format("Tensor: dimension {} is out of range of {}", i, describe()));
  return strides_[index];
}

bool Tensor::is_contiguous() const {
  if (numel() == 0) return true;
  std::int64_t step = 1;
  for (int i = ndim() - 1; i >= 0; --i) {
    if (shape_[i] != 1 && strides_[i] != step) return false;
    step *= shape_[i];
  }
  return true;
}

double Tensor::item() const {
  if (numel() != 1)
    fail<ShapeError>(fmt::format("item: tensor must have one element, got {}", describe()));
  if (device().type != DeviceType::cpu) return to(Device{}).item();
  return dispatch_all(dtype_, [&]<typename T>() { return convert<double>(*data<T>()); });
}

Tensor Tensor::with_layout(const Shape& shape, const Shape& strides, std::int64_t offset) const {
  Tensor out = *this;
  out.shape_ = shape;
  out.strides_ = strides;
  out.offset_ = offset;
  return out;
}

Tensor Tensor::view(const Shape& shape) const {
  if (!is_contiguous())
    fail<ShapeError>(fmt::format("view: tensor must be contiguous, got {}", describe()));
  Shape resolved = shape;
  int unknown = -1;
  std::int64_t known = 1;
  for (int i = 0; i < shape.ndim(); ++i) {
    if (shape[i] == -1 && unknown < 0) {
      unknown = i;
    } else {
      known *= shape[i];
    }
  }
  if (unknown >= 0 && known > 0) resolved[unknown] = numel() / known;
  const bool negative =
      std::any_of(resolved.begin(), resolved.end(), [](std::int64_t size) { return size < 0; });
  if (negative || resolved.numel() != numel())
    fail<ShapeError>(
        fmt::format("view: {} has not the {} elements of {}", shape, numel(), describe()));
  return with_layout(resolved, contiguous_strides(resolved), offset_);
}

Tensor Tensor::slice(int dim, std::int64_t begin, std::int64_t end) const {
  const std::int64_t size = this->dim(dim);
  const int index = dim < 0 ? dim + ndim() : dim;
  if (begin < 0 || begin > end || end > size)
    fail<ShapeError>(fmt::format("slice: {}..{} of dimension {} is out of range of {}", begin, end,
                                 dim, describe()));
  Shape shape = shape_;
  shape[index] = end - begin;
  return with_layout(shape, strides_, offset_ + begin * strides_[index]);
}

Tensor Tensor::permute(std::initializer_list<int> dims) const {
  Shape shape, strides;
  unsigned seen = 0;
  for (const int d : dims) {
    if (d < 0 || d >= ndim() || (seen >> d & 1u) != 0)
      fail<ShapeError>(fmt::format("permute: dimensions must be a permutation of {}", describe()));
    seen |= 1u << d;
    shape.push_back(shape_[d]);
    strides.push_back(strides_[d]);
  }
  if (shape.ndim() != ndim())
    fail<ShapeError>(fmt::format("permute: dimensions must be a permutation of {}", describe()));
  return with_layout(shape, strides, offset_);
}

Tensor Tensor::transpose(int a, int b) const {
  a = a < 0 ? a + ndim() : a;
  b = b < 0 ? b + ndim() : b;
  if (a < 0 || b < 0 || a >= ndim() || b >= ndim())
    fail<ShapeError>(fmt::format("transpose: dimensions {} and {} of {}", a, b, describe()));
  Shape shape = shape_, strides = strides_;
  std::swap(shape[a], shape[b]);
  std::swap(strides[a], strides[b]);
  return with_layout(shape, strides, offset_);
}

Tensor Tensor::clone() const {
  Tensor out = empty(shape_, dtype_, device());
  out.copy_from(*this);
  return out;
}

Tensor Tensor::contiguous() const { return is_contiguous() ? *this : clone(); }

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  Tensor out = empty(shape_, dtype, device());
  out.copy_from(*this);
  return out;
}

Tensor Tensor::to(Device device) const {
  if (device == this->device()) return *this;
  Tensor out = empty(shape_, dtype_, device);
  out.copy_from(*this);
  return out;
}

/// Between devices only contiguous bytes travel; strides and dtypes are mended on either side.
void Tensor::copy_between_devices(const Tensor& source) const {
  const Tensor dense = source.contiguous();
  if (dtype_ == dense.dtype_ && is_contiguous()) {
    const Device to = device(), from = dense.device();
    device_backend(to.type == DeviceType::cpu ? from : to)
        .copy(raw(), to, dense.raw(), from, bytes());
    return;
  }
  const Tensor landed = empty(shape_, dense.dtype_, device());
  landed.copy_between_devices(dense);
  copy_from(landed);
}

void Tensor::copy_from(const Tensor& source) const {
  if (shape_ != source.shape_)
    fail<ShapeError>(fmt::format("copy_from: {} cannot take {}", describe(), source.describe()));
  if (numel() == 0) return;
  if (device() != source.device()) return copy_between_devices(source);
  if (device().type != DeviceType::cpu) return device_backend(device()).convert(source, *this);
  if (dtype_ == source.dtype_ && is_contiguous() && source.is_contiguous()) {
    std::memmove(raw(), source.raw(), bytes());
    return;
  }
  dispatch_all(dtype_, [&]<typename To>() {
    dispatch_all(source.dtype_, [&]<typename From>() {
      copy_strided(data<To>(), source.data<From>(), shape_, strides_, source.strides_, 0);
    });
  });
}

void Tensor::fill(double value) const {
  if (device().type != DeviceType::cpu) {
    if (numel() > 0) device_backend(device()).fill(*this, value);
    return;
  }
  dispatch_all(dtype_, [&]<typename T>() {
    if (is_contiguous()) {
      std::fill_n(data<T>(), numel(), convert<T>(value));
      return;
    }
    const T scalar = convert<T>(value);
    Shape zero_strides = strides_;
    for (int i = 0; i < zero_strides.ndim(); ++i) zero_strides[i] = 0;
    copy_strided(data<T>(), &scalar, shape_, strides_, zero_strides, 0);
  });
}

std::string Tensor::describe() const {
  if (!defined()) return "undefined";
  return fmt::format("{} {} {}", name_of(dtype_), shape_, to_string(device()));
}

void Tensor::check_dtype(DType expected) const {
  if (dtype_ != expected)
    fail<DTypeError>(fmt::format("data: tensor must be {}, got {}", name_of(expected), describe()));
}

void Tensor::check_count(std::int64_t count) const {
  if (count != numel())
    fail<ShapeError>(fmt::format("Tensor: {} needs {} values, got {}", shape_, numel(), count));
}

void check_shape(const Tensor& tensor, const Shape& expected, std::string_view operation,
                 std::string_view name, SourceLocation where) {
  if (!tensor.defined() || tensor.shape() != expected)
    fail<ShapeError>(
        fmt::format("{}: {} must be {}, got {}", operation, name, expected, tensor.describe()),
        where);
}

void check_ndim(const Tensor& tensor, int ndim, std::string_view operation, std::string_view name,
                SourceLocation where) {
  if (!tensor.defined() || tensor.ndim() != ndim)
    fail<ShapeError>(fmt::format("{}: {} must have {} dimensions, got {}", operation, name, ndim,
                                 tensor.describe()),
                     where);
}

void check_dtype(const Tensor& tensor, DType expected, std::string_view operation,
                 std::string_view name, SourceLocation where) {
  if (!tensor.defined() || tensor.dtype() != expected)
    fail<DTypeError>(fmt::format("{}: {} must be {}, got {}", operation, name, name_of(expected),
                                 tensor.describe()),
                     where);
}

void check_device(const Tensor& tensor, const Tensor& partner, std::string_view operation,
                  std::string_view name, SourceLocation where) {
  if (tensor.defined() && partner.defined() && tensor.device() != partner.device())
    fail<DeviceError>(fmt::format("{}: {} must be on {}, got {}", operation, name,
                                  to_string(partner.device()), tensor.describe()),
                      where);
}

void check_computable(const Tensor& tensor, std::string_view operation, std::string_view name,
                      SourceLocation where) {
  const bool on_cpu = tensor.device().type == DeviceType::cpu;
  const DType second = on_cpu ? DType::f64 : DType::bf16;
  if (!tensor.defined() || (tensor.dtype() != DType::f32 && tensor.dtype() != second))
    fail<DTypeError>(fmt::format("{}: {} must be f32 or {}{}, got {}", operation, name,
                                 name_of(second), on_cpu ? "" : " on CUDA", tensor.describe()),
                     where);
}

void check_contiguous(const Tensor& tensor, std::string_view operation, std::string_view name,
                      SourceLocation where) {
  if (!tensor.defined() || !tensor.is_contiguous())
    fail<ShapeError>(
        fmt::format("{}: {} must be contiguous, got {}", operation, name, tensor.describe()),
        where);
}

}  // namespace lectern
