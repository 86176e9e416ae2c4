#include "recipes/checkpoint/adapter_folder.h"

#include "core/error.h"
#include "core/io/file.h"
#include "core/io/files.h"
#include "core/io/safetensors.h"
#include "nn/weights.h"
#include "recipes/checkpoint/folder.h"
#include "recipes/checkpoint/peft.h"

#include <nlohmann/json.hpp>
#include <zlib.h>

#include <map>

namespace lectern {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kOurs = "adapter.json";

/// The folder that `path` stands for: itself, or a run's newest checkpoint.
fs::path adapter_folder(const fs::path& path) {
  if (fs::exists(path / kOurs) || is_peft_folder(path)) return path;
  if (!fs::is_directory(path))
    fail<IoError>(fmt::format("{}: no such folder of an adapter", path.string()));
  const bool is_run = fs::exists(path / "checkpoints") || newest_complete(path).has_value();
  const fs::path folder = is_run ? resolve_checkpoint(path) : path;
  if (!fs::exists(folder / kOurs))
    fail<IoError>(fmt::format("{}: must hold an adapter, {} or adapter_config.json, got neither",
                              folder.string(), kOurs));
  return folder;
}

template <typename T>
T field_of(const json& object, const char* name, const fs::path& file) {
  try {
    return object.at(name).get<T>();
  } catch (const json::exception& error) {
    fail<IoError>(fmt::format("{}: {}: {}", file.string(), name, error.what()));
  }
}

AdapterInfo read_ours(const fs::path& file) {
  const json in = parse_json(read_file(file), file.string());
  AdapterInfo out;
  out.rank = field_of<std::int64_t>(in, "rank", file);
  out.alpha = field_of<double>(in, "alpha", file);
  out.rslora = field_of<bool>(in, "rslora", file);
  const json base = field_of<json>(in, "base", file);
  out.base = field_of<std::string>(base, "folder", file);
  out.base_hash = field_of<std::string>(base, "sha256", file);
  const json matrices = field_of<json>(in, "matrices", file);
  for (const auto& [matrix, pair] : matrices.items())
    out.shape[matrix] = {field_of<std::int64_t>(pair, "rank", file),
                         field_of<double>(pair, "scale", file)};
  if (out.shape.empty()) fail<IoError>(fmt::format("{}: matrices: names none", file.string()));
  return out;
}

}  // namespace

std::string weights_hash(const fs::path& folder, const ModelConfig& config) {
  const SafetensorsFolder tensors = SafetensorsFolder::open(folder);
  std::map<std::string, std::string> published;
  for (const std::string& name : tensors.names()) published[config.published_name(name)] = name;
  std::string all;
  for (const auto& [name, stored] : published) {
    const Tensor tensor = tensors.get(stored).contiguous();
    const auto* bytes = static_cast<const Bytef*>(tensor.raw());
    const std::uint64_t sum = crc32_z(0, bytes, tensor.bytes());
    all += fmt::format("{} {} {} {:08x}\n", name, name_of(tensors.dtype_of(stored)), tensor.shape(),
                       sum);
    tensors.release(stored);
  }
  return sha256_of(all);
}

bool is_adapter_folder(const fs::path& path) {
  if (fs::exists(path / kOurs)) return true;
  // PEFT's files may lie in a model's own folder, which then is a model.
  if (fs::exists(path / "config.json") || !fs::is_directory(path)) return false;
  if (is_peft_folder(path)) return true;
  const fs::path checkpoints = fs::exists(path / "checkpoints") ? path / "checkpoints" : path;
  const auto newest = newest_complete(checkpoints);
  return newest && fs::exists(newest->path / kOurs);
}

AdapterInfo read_adapter_info(const fs::path& path, const ModelConfig& config) {
  const fs::path folder = adapter_folder(path);
  if (fs::exists(folder / kOurs)) return read_ours(folder / kOurs);
  return read_peft_info(folder, config);
}

void load_adapter(Adapter& adapter, const fs::path& path, const ModelConfig& config) {
  const fs::path folder = adapter_folder(path);
  if (!fs::exists(folder / kOurs)) {
    load_weights(adapter.store(), folder / kPeftWeights,
                 [&](const std::string& name) { return published_of_peft(name, config); });
    return;
  }
  const std::string damage = find_damage(folder, CheckedFiles::model);
  if (!damage.empty()) fail<IoError>(damage);
  load_weights(adapter.store(), folder / "adapter.safetensors",
               [](const std::string& name) { return name; });
}

void check_base(const AdapterInfo& info, const fs::path& adapter, const fs::path& base,
                const ModelConfig& config) {
  if (info.base_hash.empty()) return;
  const std::string hash = weights_hash(base, config);
  if (hash == info.base_hash) return;
  fail<ConfigError>(fmt::format(
      "{}: is an adapter of the weights in {} (sha256 {}...), but {} holds others ({}...)",
      adapter.string(), info.base, info.base_hash.substr(0, 12), base.string(),
      hash.substr(0, 12)));
}

std::string adapter_json(const AdapterInfo& info) {
  json matrices = json::object();
  for (const auto& [matrix, pair] : info.shape)
    matrices[matrix] = {{"rank", pair.rank}, {"scale", pair.scale}};
  const json out = {{"rank", info.rank},
                    {"alpha", info.alpha},
                    {"rslora", info.rslora},
                    {"base", {{"folder", info.base}, {"sha256", info.base_hash}}},
                    {"matrices", matrices}};
  return out.dump(1) + "\n";
}

}  // namespace lectern
