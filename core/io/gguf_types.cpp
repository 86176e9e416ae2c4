#include "core/io/gguf_types.h"

#include "core/convert_math.h"
#include "core/dtype.h"
#include "core/error.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace lectern {
namespace {

using convert_math::half_bits;
using convert_math::half_to_f32;

constexpr GgufType kTypes[] = {GgufType::f32, GgufType::f16, GgufType::bf16, GgufType::q8_0,
                               GgufType::q4_0};
constexpr std::int64_t kBlock = 32;
constexpr float kLargestQ8 = 127, kLargestQ4 = -8;  // codes of the value of largest magnitude
constexpr float kMiddleQ4 = 8, kTopQ4 = 15;

float largest_magnitude(const float* values, std::int64_t count) {
  float largest = 0;
  for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(values[i]));
  return largest;
}

/// 1 / scale, or 0 where there is nothing to divide: then all codes are those of zero.
float inverse(float scale) {
  const float out = 1 / scale;
  return scale == 0 || std::isinf(out) ? 0 : out;
}

void put_half(float value, std::byte* to) {
  const std::uint16_t bits = half_bits(value);
  std::memcpy(to, &bits, sizeof bits);
}

float get_half(const std::byte* from) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, from, sizeof bits);
  return half_to_f32(bits);
}

void encode_q8_0(const float* from, std::byte* to) {
  const float scale = largest_magnitude(from, kBlock) / kLargestQ8;
  const float factor = inverse(scale);
  put_half(scale, to);
  for (std::int64_t i = 0; i < kBlock; ++i)
    to[2 + i] = static_cast<std::byte>(static_cast<std::int8_t>(std::round(from[i] * factor)));
}

void decode_q8_0(const std::byte* from, float* to) {
  const float scale = get_half(from);
  for (std::int64_t i = 0; i < kBlock; ++i)
    to[i] = scale * static_cast<float>(static_cast<std::int8_t>(from[2 + i]));
}

/// The code of one value: rounded product plus 8.5, cut off. The product is rounded to f32 before
/// the addition, as other programs do it: the cast keeps the compiler from fusing the two.
unsigned code_q4_0(float value, float factor) {
  const auto product = static_cast<float>(static_cast<double>(value) * static_cast<double>(factor));
  return static_cast<unsigned>(std::min(product + (kMiddleQ4 + 0.5f), kTopQ4));
}

void encode_q4_0(const float* from, std::byte* to) {
  const float* largest = std::max_element(
      from, from + kBlock, [](float a, float b) { return std::abs(a) < std::abs(b); });
  const float scale = *largest / kLargestQ4;
  const float factor = inverse(scale);
  put_half(scale, to);
  for (std::int64_t i = 0; i < kBlock / 2; ++i)
    to[2 + i] = static_cast<std::byte>(code_q4_0(from[i], factor) |
                                       code_q4_0(from[kBlock / 2 + i], factor) << 4);
}

void decode_q4_0(const std::byte* from, float* to) {
  const float scale = get_half(from);
  for (std::int64_t i = 0; i < kBlock / 2; ++i) {
    const auto both = static_cast<unsigned>(from[2 + i]);
    to[i] = scale * (static_cast<float>(both & 15u) - kMiddleQ4);
    to[kBlock / 2 + i] = scale * (static_cast<float>(both >> 4) - kMiddleQ4);
  }
}

}  // namespace

std::string_view name_of(GgufType type) {
  switch (type) {
    case GgufType::f32:
      return "f32";
    case GgufType::f16:
      return "f16";
    case GgufType::q4_0:
      return "q4_0";
    case GgufType::q8_0:
      return "q8_0";
    case GgufType::bf16:
      return "bf16";
  }
  return "?";
}

std::vector<std::string> gguf_type_names() {
  std::vector<std::string> out;
  for (const GgufType type : kTypes) out.emplace_back(name_of(type));
  return out;
}

std::optional<GgufType> gguf_type_of(std::uint32_t number) {
  for (const GgufType type : kTypes)
    if (static_cast<std::uint32_t>(type) == number) return type;
  return std::nullopt;
}

std::optional<GgufType> gguf_type_of(std::string_view name) {
  for (const GgufType type : kTypes)
    if (name_of(type) == name) return type;
  return std::nullopt;
}

std::int64_t block_values(GgufType type) {
  return type == GgufType::q4_0 || type == GgufType::q8_0 ? kBlock : 1;
}

std::size_t block_bytes(GgufType type) {
  switch (type) {
    case GgufType::f32:
      return 4;
    case GgufType::q4_0:
      return 2 + kBlock / 2;
    case GgufType::q8_0:
      return 2 + kBlock;
    case GgufType::f16:
    case GgufType::bf16:
      break;
  }
  return 2;
}

void encode_blocks(GgufType type, const float* from, std::int64_t count, std::byte* to) {
  const std::int64_t step = block_values(type);
  const std::size_t bytes = block_bytes(type);
  switch (type) {
    case GgufType::f32:
      std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
      return;
    case GgufType::bf16:
      convert_math::row_to_bf16(from, count, reinterpret_cast<BFloat16*>(to));
      return;
    case GgufType::f16:
      for (std::int64_t i = 0; i < count; ++i) put_half(from[i], to + 2 * i);
      return;
    case GgufType::q8_0:
      for (std::int64_t i = 0; i < count; i += step, to += bytes) encode_q8_0(from + i, to);
      return;
    case GgufType::q4_0:
      for (std::int64_t i = 0; i < count; i += step, to += bytes) encode_q4_0(from + i, to);
      return;
  }
}

void decode_blocks(GgufType type, const std::byte* from, std::int64_t count, float* to) {
  const std::int64_t step = block_values(type);
  const std::size_t bytes = block_bytes(type);
  switch (type) {
    case GgufType::f32:
      std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
      return;
    case GgufType::bf16:
      convert_math::row_to_f32(reinterpret_cast<const BFloat16*>(from), count, to);
      return;
    case GgufType::f16:
      for (std::int64_t i = 0; i < count; ++i) to[i] = get_half(from + 2 * i);
      return;
    case GgufType::q8_0:
      for (std::int64_t i = 0; i < count; i += step, from += bytes) decode_q8_0(from, to + i);
      return;
    case GgufType::q4_0:
      for (std::int64_t i = 0; i < count; i += step, from += bytes) decode_q4_0(from, to + i);
      return;
  }
}

bool may_hold(GgufType type, const float* values, std::int64_t count) {
  if (type == GgufType::f32) return true;
  // From where on rounding gives infinity. A comparison with NaN is false.
  constexpr float kHalfInfinity = 65520, kBFloatInfinity = 0x1.ffp127F;
  float limit = kHalfInfinity;
  if (type == GgufType::bf16) limit = kBFloatInfinity;
  if (type == GgufType::q8_0) limit *= kLargestQ8;
  if (type == GgufType::q4_0) limit *= -kLargestQ4;
  return std::all_of(values, values + count, [&](float value) { return std::abs(value) < limit; });
}

double error_bound(GgufType type, double value, double largest) {
  constexpr double kHalf = 0x1p-11, kSmallestHalf = 0x1p-25;  // half a unit of 11 bits; subnormals
  constexpr double kBFloat = 0x1p-8, kSmallestBFloat = 0x1p-134;
  // Codes are computed from an inverse that is rounded: a part in 2^22 of the largest value.
  constexpr double kComputed = 0x1p-22;
  switch (type) {
    case GgufType::f32:
      return 0;
    case GgufType::bf16:
      return std::max(std::abs(value) * kBFloat, kSmallestBFloat);
    case GgufType::f16:
      return std::max(std::abs(value) * kHalf, kSmallestHalf);
    case GgufType::q8_0:
      return largest / 127 / 2 + std::max(largest * kHalf, 127 * kSmallestHalf) +
             largest * kComputed;
    case GgufType::q4_0:
      return largest / 8 + std::max(largest * kHalf, 8 * kSmallestHalf) + largest * kComputed;
  }
  return 0;
}

}  // namespace lectern
