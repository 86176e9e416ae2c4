#include "recipes/ablate/content.h"

#include "core/io/files.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <mutex>

namespace lectern {
namespace {

namespace fs = std::filesystem;

/// Hash of a file; kept for the many times that one process asks.
std::string hash_of(const fs::path& file) {
  struct Known {
    std::uintmax_t bytes = 0;
    fs::file_time_type written;
    std::string hash;
  };
  static std::mutex mutex;
  static std::map<fs::path, Known> known;
  const std::uintmax_t bytes = fs::file_size(file);
  const fs::file_time_type written = fs::last_write_time(file);
  const std::lock_guard lock(mutex);
  Known& at = known[fs::absolute(file)];
  if (at.hash.empty() || at.bytes != bytes || at.written != written)
    at = {bytes, written, sha256_of_file(file)};
  return at.hash;
}

std::vector<fs::path> files_below(const fs::path& path) {
  std::error_code error;
  if (fs::is_regular_file(path, error)) return {path};
  std::vector<fs::path> out;
  if (!fs::is_directory(path, error)) return out;
  for (const auto& entry : fs::recursive_directory_iterator(path))
    if (entry.is_regular_file() && !entry.path().filename().string().starts_with('.'))
      out.push_back(entry.path());
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace

std::string content_hash(const std::vector<fs::path>& paths) {
  std::string all;
  for (const fs::path& path : paths)
    for (const fs::path& file : files_below(path))
      all += fmt::format("{} {}\n", file.string(), hash_of(file));
  return sha256_of(all).substr(0, 16);
}

std::vector<fs::path> inputs_of(const Recipe& recipe) {
  const DataRecipe& data = recipe.data;
  const ModelRecipe& model = recipe.model;
  std::vector<fs::path> out(data.shards.begin(), data.shards.end());
  for (const std::string& each :
       {data.validation, data.tokenizer, model.config, model.init, model.init_encoder,
        model.init_decoder, model.init_sam, model.init_qwen2})
    if (!each.empty()) out.emplace_back(each);
  for (const auto* list : {&data.sources, &data.validation_sources})
    for (const SourceRecipe& source : *list)
      for (const fs::path& path : source.settings->inputs()) out.push_back(path);
  return out;
}

}  // namespace lectern
