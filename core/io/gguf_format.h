// Numbers of the GGUF format that its writer and reader share. Private to this room.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

namespace lectern::gguf_format {

constexpr std::uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr std::uint32_t kVersion = 3;
constexpr std::size_t kAlignment = 32;
constexpr std::size_t kLongestName = 63;
constexpr int kMostDimensions = 4;

constexpr std::size_t padded(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Types of values.
constexpr std::uint32_t kUint32 = 4, kInt32 = 5, kFloat32 = 6, kBool = 7, kString = 8, kArray = 9;

template <typename T>
constexpr std::uint32_t kCodeOf = 0;
template <>
inline constexpr std::uint32_t kCodeOf<std::uint32_t> = kUint32;
template <>
inline constexpr std::uint32_t kCodeOf<std::int32_t> = kInt32;
template <>
inline constexpr std::uint32_t kCodeOf<float> = kFloat32;
template <>
inline constexpr std::uint32_t kCodeOf<bool> = kBool;
template <>
inline constexpr std::uint32_t kCodeOf<std::string> = kString;

template <typename T>
constexpr bool kIsArray = false;
template <typename T>
inline constexpr bool kIsArray<std::vector<T>> = true;

}  // namespace lectern::gguf_format
