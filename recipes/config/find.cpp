#include "recipes/config/find.h"

#include "core/error.h"
#include "recipes/config/nearest.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {
namespace {

namespace fs = std::filesystem;

/// Where recipes lay until 2026-11, and where they lie now: beginnings of names below recipes/.
struct Moved {
  std::string_view before, now;
};
constexpr std::array kMoved = {
    Moved{"quickstart-mhc.toml", "quickstart-mhc/all.toml"},
    Moved{"ablate-", "ablations/"},
    Moved{"models/", "models/"},
    Moved{"gpus.toml", "machines/gpus.toml"},
    Moved{"slurm.sbatch", "machines/slurm.sbatch"},
};

/// The folder that recipes/ lies in, of the running program: that of the sources, or share/lectern
/// of an installation; empty when there is none.
fs::path shipped_root() {
  std::error_code error;
  fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (int up = 0; up < 3 && !folder.empty(); ++up, folder = folder.parent_path())
    for (const fs::path& root : {folder, folder / "share/lectern"})
      if (fs::is_directory(root / "recipes/configs", error)) return root;
  return {};
}

/// The folders whose recipes have names.
std::vector<fs::path> recipe_folders() {
  std::vector<fs::path> out = {"recipes/configs"};
  if (const fs::path root = shipped_root(); !root.empty()) out.push_back(root / "recipes/configs");
  return out;
}

std::optional<fs::path> file_at(fs::path path) {
  std::error_code error;
  if (fs::is_regular_file(path, error)) return path.lexically_normal();
  path += ".toml";
  if (fs::is_regular_file(path, error)) return path.lexically_normal();
  return std::nullopt;
}

/// "recipes/quickstart-stage1.toml" -> "quickstart/stage1.toml"; empty for a name that never was.
std::string moved_to(const fs::path& name) {
  const std::string path = name.lexically_normal().string();
  constexpr std::string_view kFolder = "recipes/";
  const auto at = path.rfind(kFolder);
  if (at == std::string::npos) return "";
  const std::string_view rest = std::string_view(path).substr(at + kFolder.size());
  for (const Moved& moved : kMoved)
    if (rest.starts_with(moved.before))
      return std::string(moved.now) + std::string(rest.substr(moved.before.size()));
  // All others were "<folder>-<name>".
  std::error_code error;
  for (auto dash = rest.rfind('-'); dash != std::string_view::npos && dash > 0;
       dash = rest.rfind('-', dash - 1))
    for (const fs::path& folder : recipe_folders())
      if (fs::is_directory(folder / rest.substr(0, dash), error))
        return fmt::format("{}/{}", rest.substr(0, dash), rest.substr(dash + 1));
  return "";
}

/// Names of all recipes, without .toml.
std::vector<std::string> recipe_names() {
  std::vector<std::string> out;
  std::error_code error;
  for (const fs::path& folder : recipe_folders())
    for (const auto& entry : fs::recursive_directory_iterator(folder, error))
      if (entry.path().extension() == ".toml")
        out.push_back(entry.path().lexically_relative(folder).replace_extension().string());
  std::sort(out.begin(), out.end());
  return out;
}

/// Throws, with the new name, for what lay in recipes/ and was moved.
void refuse_moved(const fs::path& name) {
  const fs::path now = moved_to(name);
  if (now.empty()) return;
  for (const fs::path& folder : recipe_folders())
    if (const fs::path file = folder / now; fs::exists(file))
      fail<ConfigError>(fmt::format("{}: is now {} ({})", name.string(),
                                    fs::path(now).replace_extension().string(), file.string()));
}

[[noreturn]] void refuse(const fs::path& name) {
  refuse_moved(name);
  const std::string near = nearest_name(name.lexically_normal().string(), recipe_names());
  fail<IoError>(fmt::format("{}: is no file, and no recipe of recipes/configs has that name{}",
                            name.string(),
                            near.empty() ? "" : fmt::format("; did you mean {}?", near)));
}

/// The file, or the recipe of that name.
std::optional<fs::path> found(const fs::path& name) {
  std::error_code error;
  const bool exists = fs::exists(name, error);
  if (exists && !fs::is_directory(name, error)) return name;
  for (const fs::path& folder : recipe_folders())
    if (auto file = file_at(folder / name)) return file;
  if (exists) return name;
  const fs::path shipped = find_shipped(name);
  return shipped == name ? file_at(name) : shipped;
}

}  // namespace

fs::path find_recipe(const fs::path& name) {
  if (name.is_absolute() && moved_to(name).empty()) return name;
  if (auto file = found(name)) return *file;
  refuse(name);
}

fs::path find_recipe_from(const fs::path& file, const fs::path& name) {
  const fs::path folder = file.parent_path();
  for (const fs::path& from : {folder, folder / ".."})
    if (auto beside = file_at(from / name)) return *beside;
  return find_recipe(name);
}

fs::path find_shipped(const fs::path& path) {
  std::error_code error;
  if (path.is_absolute() || path.empty() || *path.begin() != "recipes" || fs::exists(path, error))
    return path;
  const fs::path root = shipped_root();
  const fs::path shipped = root / path;
  if (!root.empty() && fs::exists(shipped, error)) return shipped;
  refuse_moved(path);
  return path;
}

}  // namespace lectern
