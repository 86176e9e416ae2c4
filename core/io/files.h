// What document files need beyond core/io/file.h: quick replacement, hashes, gzip.
#pragma once

#include "core/error.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace lectern {

/// Something could not be written, where a function also reads: no fault of what it reads.
class WriteError : public IoError {
  using IoError::IoError;
};

/// Writes a temporary file beside `path` and renames it, so that readers see `path` whole or not at
/// all. Unlike core/io/file.h it does not wait for the disk: for the many small files of a folder
/// that can be made again. Throws IoError.
void replace_file(const std::filesystem::path& path, std::string_view bytes);

/// SHA-256 of a file's bytes, 64 lower-case hexadecimal digits. Throws IoError.
std::string sha256_of_file(const std::filesystem::path& path);
/// The same of bytes in memory.
std::string sha256_of(std::string_view bytes);

/// CRC-32 of a file's bytes, as zlib and PNG have it: for noticing damage. Throws IoError.
std::uint32_t crc32_of_file(const std::filesystem::path& path);

/// Unpacks a gzip file. Throws IoError when it is damaged, truncated or would exceed `max_bytes`,
/// WriteError when `to` cannot be written.
void gunzip_file(const std::filesystem::path& from, const std::filesystem::path& to,
                 std::uint64_t max_bytes = std::uint64_t{1} << 32);

}  // namespace lectern
