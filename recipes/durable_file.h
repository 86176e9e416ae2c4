// Files that are either wholly there or not there at all, whatever happens to process, disk or
// power. Every function throws IoError that names the file and the system's reason.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace lectern {

/// Writes a new file (or replaces one): bytes go to `<path>.tmp`, are fsynced, and the file is
/// renamed into place. On failure (a full disk, say) the old file is untouched and nothing
/// half-written is left. `sync` false leaves out fsync: safe against a killed process only.
void write_file(const std::filesystem::path& path, std::string_view bytes, bool sync = true);

/// Whole file as bytes; IoError when it is missing, not a plain file or over `max_bytes`.
std::string read_file(const std::filesystem::path& path,
                      std::uintmax_t max_bytes = std::uintmax_t{1} << 30);

/// Forces a file's content, or a folder's list of names, to the disk.
void sync_file(const std::filesystem::path& path);
void sync_folder(const std::filesystem::path& path);

}  // namespace lectern
