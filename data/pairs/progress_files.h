// What a build of pairs leaves on the way, so that another process goes on behind its last whole
// shard: progress.json, and files that only grow, which are cut to what it says. Private to this
// room.
#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace lectern::detail {

/// A file that is written at its end.
class GrowingFile {
 public:
  /// Cuts what is there to `bytes`. Throws IoError when it cannot be written or has fewer.
  GrowingFile(std::filesystem::path path, std::int64_t bytes);
  void append(std::string_view text);
  /// What was appended until now is with the system. Throws IoError (a full disk, say).
  void flush();
  std::int64_t bytes() const { return bytes_; }

 private:
  std::filesystem::path path_;
  std::ofstream out_;
  std::int64_t bytes_ = 0;
};

/// progress.json of `partial`, when it is of the build with this fingerprint and the shards that it
/// names are in `partial`/new as they were written; else null.
nlohmann::json load_progress(const std::filesystem::path& partial, const std::string& fingerprint);

/// Removes files of new/train and new/validation that progress does not name.
void remove_unfinished(const std::filesystem::path& partial, const nlohmann::json& progress);

}  // namespace lectern::detail
