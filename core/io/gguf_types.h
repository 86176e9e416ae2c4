// How GGUF files hold numbers: plain floats, and blocks of 32 values with one scale.
//
//   Q8_0: 34 bytes, d (half) and 32 signed bytes q:  x = d q,        d = max|x| / 127
//   Q4_0: 18 bytes, d (half) and 32 nibbles q:       x = d (q - 8),  d = m / -8
//
// with m the value of largest magnitude (the first, where there are several), which so becomes
// q = 0 exactly. Byte j of a Q4_0 block holds values j (low nibble) and j + 16. Blocks lie along
// the last dimension of a tensor and never go over the end of a row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// The numbers are those of the file.
enum class GgufType : std::uint32_t { f32 = 0, f16 = 1, q4_0 = 2, q8_0 = 8, bf16 = 30 };

/// "f32", "f16", "q4_0", "q8_0", "bf16".
std::string_view name_of(GgufType type);
std::vector<std::string> gguf_type_names();
/// By its number in files, by its name; nothing for any other.
std::optional<GgufType> gguf_type_of(std::uint32_t number);
std::optional<GgufType> gguf_type_of(std::string_view name);
/// Values that share a block; 1 for floats.
std::int64_t block_values(GgufType type);
std::size_t block_bytes(GgufType type);

/// Rounds `count` values, a multiple of block_values(), to count / block_values() * block_bytes()
/// bytes. Values must be finite and may_hold() of them true.
void encode_blocks(GgufType type, const float* from, std::int64_t count, std::byte* to);
/// What the blocks say.
void decode_blocks(GgufType type, const std::byte* from, std::int64_t count, float* to);

/// Whether encode_blocks() keeps the values near what they are: f32 holds any, the others nothing
/// that is not finite, and nothing that would make a value, or the scale of a block, infinite.
bool may_hold(GgufType type, const float* values, std::int64_t count);

/// How far a decoded value may lie from `value`, in a block whose largest magnitude is `largest`: 0
/// for f32; half a unit in the last place for f16 and bf16; half a step for Q8_0; a step for Q4_0,
/// whose largest code 15 stands for 7 steps where -m wants 8; and what rounding the scale adds.
double error_bound(GgufType type, double value, double largest);

}  // namespace lectern
