// Files: whole reads, read-only mappings, writes that are complete or absent, guarded JSON parsing.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace lectern {

/// The file's bytes. Throws IoError naming the file (missing, unreadable, over `max_bytes`).
std::string read_file(const std::filesystem::path& path,
                      std::size_t max_bytes = std::size_t{1} << 32);

struct MappedFile {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;  // unmaps when the last reference goes
};
/// Maps a file privately: pages are read on demand and shared with the page cache.
MappedFile map_file(const std::filesystem::path& path);

/// A file that appears under its name only when it is complete: written beside it, fsynced,
/// renamed. Destroyed without commit(), it leaves nothing behind. Throws IoError naming the file.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
};

/// Writes a whole file through AtomicFile.
void write_file(const std::filesystem::path& path, std::string_view text);

/// Whether an object may give a key twice; the last one then counts, as JSON readers have it.
enum class JsonKeys { last_counts, unique };

/// Parses JSON from outside. Throws IoError "<name>: not valid JSON: ..." and refuses nesting
/// deeper than 64, which a recursive reader could not survive.
nlohmann::json parse_json(std::string_view text, const std::string& name,
                          JsonKeys keys = JsonKeys::last_counts);

}  // namespace lectern
