// Sizes of a tensor: up to 8 dimensions, 64-bit, held inline (no heap).
#pragma once

#include "core/error.h"

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace lectern {

class Shape {
 public:
  static constexpr int kMaxDims = 8;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes)
      : Shape(std::span<const std::int64_t>(sizes.begin(), sizes.size())) {}
  explicit Shape(std::span<const std::int64_t> sizes) {
    if (sizes.size() > kMaxDims)
      fail<ShapeError>(fmt::format("Shape: at most 8 dimensions, got {}", sizes.size()));
    for (const std::int64_t size : sizes) push_back(size);
  }

  int ndim() const { return ndim_; }
  std::int64_t operator[](int dim) const { return sizes_[static_cast<std::size_t>(dim)]; }
  std::int64_t& operator[](int dim) { return sizes_[static_cast<std::size_t>(dim)]; }
  const std::int64_t* begin() const { return sizes_.data(); }
  const std::int64_t* end() const { return sizes_.data() + ndim_; }
  void push_back(std::int64_t size) {
    if (ndim_ == kMaxDims) fail<ShapeError>("Shape: at most 8 dimensions, got 9");
    sizes_[static_cast<std::size_t>(ndim_++)] = size;
  }

  /// Product of the sizes; 1 for a scalar (no dimensions).
  std::int64_t numel() const {
    std::int64_t n = 1;
    for (const std::int64_t size : *this) {
      if (size == 0) return 0;  // whatever the other sizes are, and before they overflow
    }
    for (const std::int64_t size : *this) n *= size;
    return n;
  }

  bool operator==(const Shape& other) const {
    if (ndim_ != other.ndim_) return false;
    for (int i = 0; i < ndim_; ++i)
      if ((*this)[i] != other[i]) return false;
    return true;
  }

 private:
  std::array<std::int64_t, kMaxDims> sizes_{};
  int ndim_ = 0;
};

/// "[2, 16, 64]"
std::string to_string(const Shape& shape);

}  // namespace lectern

template <>
struct fmt::formatter<lectern::Shape> : fmt::formatter<std::string> {
  auto format(const lectern::Shape& shape, fmt::format_context& context) const {
    return fmt::formatter<std::string>::format(lectern::to_string(shape), context);
  }
};
