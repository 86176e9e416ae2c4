// What writer and reader of shards agree on. Private to this room.
#pragma once

#include <cstdint>
#include <string_view>

namespace lectern::detail {

inline constexpr std::string_view kShardFormat = "lectern-shard";
inline constexpr std::int64_t kMaxPictureBytes = std::int64_t{1} << 30;
inline constexpr std::int64_t kMaxSide = std::int64_t{1} << 16;  // pixels
inline constexpr std::int64_t kMaxNameBytes = 4096;  // of an id, document, source, kind or label
inline constexpr std::int64_t kHashBytes = 64;       // SHA-256 in hexadecimal

}  // namespace lectern::detail
