// Where recipes are: a file that was named, or one of the recipes that come with lectern, by name.
#pragma once

#include <filesystem>

namespace lectern {

/// The recipe that `name` stands for: that file, or else NAME or NAME.toml of recipes/configs in
/// the working directory or beside the running program ("quickstart/stage1"). An absolute path
/// stands for itself. Throws ConfigError with the new name for one that was moved, IoError for a
/// name that nothing has, with the nearest that there is.
std::filesystem::path find_recipe(const std::filesystem::path& name);

/// As find_recipe for a name that stands in `file`: looks first beside it, then in the folder
/// above, so that recipes of one tree find each other wherever it lies.
std::filesystem::path find_recipe_from(const std::filesystem::path& file,
                                       const std::filesystem::path& name);

/// A file or folder that recipes name: `path` itself where it is there; otherwise, if it begins
/// with "recipes/", what lies there beside the running program; otherwise `path`. Throws
/// ConfigError with the new name for what was moved.
std::filesystem::path find_shipped(const std::filesystem::path& path);

}  // namespace lectern
