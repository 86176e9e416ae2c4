// What a file is, by how it begins: suffixes lie.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace lectern {

enum class FileKind { png, jpeg, pdf, other };

/// Bytes from the start of a file that tell its kind.
inline constexpr std::size_t kFileKindBytes = 1024;

/// The kind of a file that begins with these bytes. A PDF may have up to 1,019 bytes before its
/// header, as its readers allow.
FileKind file_kind(std::span<const std::uint8_t> beginning);

/// In words, for messages: "a TIFF image", "text", "an empty file", "bytes that begin with 0a 1b".
std::string describe_file_kind(std::span<const std::uint8_t> beginning);

}  // namespace lectern
