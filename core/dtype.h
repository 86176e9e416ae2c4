// Element types of tensors, and the one place where a runtime dtype becomes a C++ type.
#pragma once

#include "core/error.h"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lectern {

/// f64 exists for gradient checks, f32 and bf16 for training, i32/i64 for ids, u8 for pixels.
enum class DType : std::uint8_t { f64, f32, bf16, i64, i32, u8 };

/// bfloat16: the upper half of an IEEE float32; conversion rounds to nearest, ties to even.
struct BFloat16 {
  std::uint16_t bits = 0;

  BFloat16() = default;
  constexpr explicit BFloat16(float value) {
    auto u = std::bit_cast<std::uint32_t>(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) {
      bits = static_cast<std::uint16_t>((u >> 16) | 0x40u);  // keep NaN a NaN
      return;
    }
    bits = static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  constexpr explicit operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
};
static_assert(sizeof(BFloat16) == 2);

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType value = DType::i64;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::u8;
};
template <typename T>
inline constexpr DType kDTypeOf = DTypeOf<T>::value;

constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
      return 2;
    case DType::u8:
      return 1;
  }
  return 0;
}

constexpr std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return "f64";
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::i64:
      return "i64";
    case DType::i32:
      return "i32";
    case DType::u8:
      return "u8";
  }
  return "?";
}

constexpr bool is_floating(DType dtype) {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::bf16;
}

/// The dtype of statistics and sums over elements of `dtype`: f32 for bf16.
constexpr DType accumulation_dtype(DType dtype) {
  return dtype == DType::bf16 ? DType::f32 : dtype;
}

/// Calls `f.template operator()<T>()` with T = float or double, the types that kernels compute in.
/// Throws DTypeError for anything else, naming `operation`.
template <typename F>
decltype(auto) dispatch_floating(DType dtype, std::string_view operation, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f.template operator()<float>();
    case DType::f64:
      return f.template operator()<double>();
    default:
      fail<DTypeError>(
          fmt::format("{}: dtype must be f32 or f64, got {}", operation, name_of(dtype)));
  }
}

/// Calls `f.template operator()<T>()` with the C++ type of any dtype.
template <typename F>
decltype(auto) dispatch_all(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64:
      return f.template operator()<double>();
    case DType::f32:
      return f.template operator()<float>();
    case DType::bf16:
      return f.template operator()<BFloat16>();
    case DType::i64:
      return f.template operator()<std::int64_t>();
    case DType::i32:
      return f.template operator()<std::int32_t>();
    case DType::u8:
      break;
  }
  return f.template operator()<std::uint8_t>();
}

}  // namespace lectern
