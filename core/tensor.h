// Tensor: an n-dimensional array. Shape, strides, dtype, device; views share memory. It knows
// nothing of gradients (autograd/variable.h wraps it), and everything that computes is a free
// function in core/ops/.
#pragma once

#include "core/device.h"
#include "core/dtype.h"
#include "core/shape.h"
#include "core/storage.h"

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace lectern {

class Tensor {
 public:
  /// An undefined tensor: no storage, defined() is false.
  Tensor() = default;

  /// Uninitialised, contiguous.
  static Tensor empty(const Shape& shape, DType dtype = DType::f32, Device device = {});
  static Tensor zeros(const Shape& shape, DType dtype = DType::f32, Device device = {});
  static Tensor full(const Shape& shape, double value, DType dtype = DType::f32,
                     Device device = {});
  /// Same shape, dtype and device as `other`, uninitialised, contiguous.
  static Tensor empty_like(const Tensor& other);
  static Tensor zeros_like(const Tensor& other);
  /// Copies `values` (row-major) to the CPU. Throws ShapeError when the count is not shape.numel().
  template <typename T>
  static Tensor from(std::span<const T> values, const Shape& shape) {
    Tensor out = empty(shape, kDTypeOf<T>);
    out.check_count(static_cast<std::int64_t>(values.size()));
    std::copy(values.begin(), values.end(), out.data<T>());
    return out;
  }
  template <typename T>
  static Tensor from(const std::vector<T>& values, const Shape& shape) {
    return from(std::span<const T>(values), shape);
  }
  /// Refers to foreign memory (contiguous) that `owner` keeps alive. Nothing is copied.
  static Tensor wrap(void* data, const Shape& shape, DType dtype,
                     std::shared_ptr<const void> owner);

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int ndim() const { return shape_.ndim(); }
  /// Size of a dimension; negative counts from the end. Throws ShapeError when out of range.
  std::int64_t dim(int i) const;
  /// Elements between neighbours along a dimension.
  std::int64_t stride(int i) const;
  std::int64_t numel() const { return shape_.numel(); }
  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_ ? storage_->device() : Device{}; }
  bool is_contiguous() const;

  /// First element. Throws DTypeError when T is not the tensor's dtype.
  template <typename T>
  T* data() const {
    check_dtype(kDTypeOf<T>);
    return static_cast<T*>(raw());
  }
  void* raw() const {
    return storage_ == nullptr ? nullptr
                               : static_cast<char*>(storage_->data()) +
                                     offset_ * static_cast<std::int64_t>(size_of(dtype_));
  }
  /// Value of a tensor with one element, converted to double. On a GPU this waits for it.
  double item() const;

  // Views: no copy. All throw ShapeError on a bad argument.
  /// Same elements in another shape; one size may be -1. Needs a contiguous tensor.
  Tensor view(const Shape& shape) const;
  /// Rows begin..end-1 of one dimension.
  Tensor slice(int dim, std::int64_t begin, std::int64_t end) const;
  Tensor permute(std::initializer_list<int> dims) const;
  Tensor transpose(int a, int b) const;

  // Copies.
  Tensor clone() const;
  /// This tensor if contiguous, else a contiguous copy.
  Tensor contiguous() const;
  /// This tensor if it has the dtype, else a converted contiguous copy.
  Tensor to(DType dtype) const;
  /// This tensor if it is there, else a contiguous copy on the device. Copies to the CPU wait.
  Tensor to(Device device) const;
  /// Copies values (any strides, any dtype, any device) from a tensor of the same shape.
  void copy_from(const Tensor& source) const;
  void fill(double value) const;

  /// Tell caches (packed weights) that the content changed. Optimizers and loaders call it.
  void mark_modified() const { storage_->mark_modified(); }
  const std::shared_ptr<Storage>& storage() const { return storage_; }
  std::int64_t offset() const { return offset_; }
  /// True when no other tensor refers to the same storage.
  bool is_unique() const { return storage_.use_count() == 1; }

  /// "f32 [2, 16, 64] cpu", for messages.
  std::string describe() const;

 private:
  void check_dtype(DType expected) const;
  void check_count(std::int64_t count) const;
  void copy_between_devices(const Tensor& source) const;
  Tensor with_layout(const Shape& shape, const Shape& strides, std::int64_t offset) const;

  std::shared_ptr<Storage> storage_;
  Shape shape_;
  Shape strides_;
  std::int64_t offset_ = 0;  // elements
  DType dtype_ = DType::f32;
};

/// Throws ShapeError "<operation>: <name> must be [..], got <tensor>" unless the shape is exact.
void check_shape(const Tensor& tensor, const Shape& expected, std::string_view operation,
                 std::string_view name, SourceLocation where = {});
/// Throws ShapeError unless the tensor has `ndim` dimensions.
void check_ndim(const Tensor& tensor, int ndim, std::string_view operation, std::string_view name,
                SourceLocation where = {});
/// Throws DTypeError unless the dtype is as expected.
void check_dtype(const Tensor& tensor, DType expected, std::string_view operation,
                 std::string_view name, SourceLocation where = {});
/// Throws DeviceError unless the tensor is where its partner is. Undefined tensors pass.
void check_device(const Tensor& tensor, const Tensor& partner, std::string_view operation,
                  std::string_view name, SourceLocation where = {});
/// Throws DTypeError unless kernels of the tensor's device compute in its dtype: f32 or f64 on the
/// CPU, f32 or bf16 on CUDA.
void check_computable(const Tensor& tensor, std::string_view operation, std::string_view name,
                      SourceLocation where = {});
/// Throws ShapeError unless the tensor is contiguous.
void check_contiguous(const Tensor& tensor, std::string_view operation, std::string_view name,
                      SourceLocation where = {});

}  // namespace lectern
