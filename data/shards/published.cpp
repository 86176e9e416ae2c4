#include "data/shards/published.h"

#include "core/error.h"
#include "core/io/file.h"

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <stdio.h>

#include <exception>

namespace lectern {

namespace fs = std::filesystem;
using nlohmann::json;

fs::path plain_path(const fs::path& path) {
  const fs::path normal = fs::absolute(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

json published_manifest(const fs::path& out, std::string_view format) {
  std::error_code error;
  if (!fs::exists(out / "manifest.json", error)) return nullptr;
  try {
    json root = parse_json(read_file(out / "manifest.json"), "manifest.json");
    if (root.is_object() && root.value("format", "") == format) return root;
  } catch (const std::exception&) {
    // Not ours, or damaged: treated as missing.
  }
  return nullptr;
}

void check_replaceable(const fs::path& out, const json& manifest, std::string_view command) {
  std::error_code error;
  if (!fs::exists(out, error) || !manifest.is_null()) return;
  if (!fs::is_directory(out, error) || !fs::is_empty(out, error))
    fail<ConfigError>(fmt::format(
        "{}: {} must be a new folder or one of shards, got something else", command, out.string()));
}

bool has_its_shards(const fs::path& out, const json& manifest) {
  for (const auto& [name, split] : manifest.at("splits").items())
    for (const json& shard : split.at("shards"))
      if (fs::file_size(out / name / shard.at("file").get<std::string>()) != shard.at("bytes"))
        return false;
  return true;
}

void publish_folder(const fs::path& folder, const fs::path& out) {
  if (!fs::exists(out)) return fs::rename(folder, out);
  // Exchanged in one step, so that at any moment a whole folder stands under the name.
  if (::renameat2(AT_FDCWD, folder.c_str(), AT_FDCWD, out.c_str(), RENAME_EXCHANGE) != 0) {
    fs::remove_all(out);
    return fs::rename(folder, out);
  }
  fs::remove_all(folder);
}

}  // namespace lectern
