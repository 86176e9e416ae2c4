// The folder that a build of shards leaves: it appears whole, in the place of an older one.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <string>
#include <string_view>

namespace lectern {

/// The path without a slash at its end, absolute.
std::filesystem::path plain_path(const std::filesystem::path& path);

/// manifest.json of the folder, or null when it has none of this format.
nlohmann::json published_manifest(const std::filesystem::path& out, std::string_view format);

/// Throws ConfigError "<command>: ..." when `out` is there and holds something else than what
/// `manifest` (null: nothing) says: nothing is deleted that something else put there.
void check_replaceable(const std::filesystem::path& out, const nlohmann::json& manifest,
                       std::string_view command);

/// Whether the manifest's shards all lie in the folder with the bytes that it says.
bool has_its_shards(const std::filesystem::path& out, const nlohmann::json& manifest);

/// Puts `folder` in the place of `out`, in one step where the file system can.
void publish_folder(const std::filesystem::path& folder, const std::filesystem::path& out);

}  // namespace lectern
