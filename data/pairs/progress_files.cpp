#include "data/pairs/progress_files.h"

#include "core/error.h"
#include "core/io/file.h"
#include "core/io/files.h"

#include <algorithm>
#include <utility>

namespace lectern::detail {

namespace fs = std::filesystem;
using nlohmann::json;

GrowingFile::GrowingFile(fs::path path, std::int64_t bytes)
    : path_(std::move(path)), bytes_(bytes) {
  std::error_code error;
  if (bytes > 0) {
    const auto size = fs::file_size(path_, error);
    if (error || size < static_cast<std::uintmax_t>(bytes))
      fail<IoError>(fmt::format("{}: must have {} bytes, got less", path_.string(), bytes));
    fs::resize_file(path_, static_cast<std::uintmax_t>(bytes), error);
  }
  out_.open(path_, bytes > 0 ? std::ios::binary | std::ios::app : std::ios::binary);
  if (error || !out_) fail<IoError>(fmt::format("{}: cannot be written", path_.string()));
}

void GrowingFile::append(std::string_view text) {
  out_.write(text.data(), static_cast<std::streamsize>(text.size()));
  bytes_ += static_cast<std::int64_t>(text.size());
}

void GrowingFile::flush() {
  out_.flush();
  if (!out_) fail<IoError>(fmt::format("{}: cannot be written", path_.string()));
}

json load_progress(const fs::path& partial, const std::string& fingerprint) {
  try {
    json progress =
        parse_json(read_file(partial / "progress.json"), (partial / "progress.json").string());
    if (progress.at("inputs_sha256") != fingerprint) return nullptr;
    for (const auto& [name, split] : progress.at("splits").items())
      for (const json& shard : split.at("shards")) {
        const fs::path path = partial / "new" / name / shard.at("file").get<std::string>();
        if (sha256_of_file(path) != shard.at("sha256")) return nullptr;
      }
    return progress;
  } catch (const std::exception&) {
    return nullptr;  // none, or damaged: the build begins anew
  }
}

void remove_unfinished(const fs::path& partial, const json& progress) {
  for (const auto& [name, split] : progress.at("splits").items()) {
    std::error_code error;
    const json& shards = split.at("shards");
    for (fs::directory_iterator at(partial / "new" / name, error), end; !error && at != end;
         at.increment(error))
      if (std::none_of(shards.begin(), shards.end(), [&](const json& shard) {
            return shard.at("file") == at->path().filename().string();
          }))
        fs::remove(at->path());
  }
}

}  // namespace lectern::detail
