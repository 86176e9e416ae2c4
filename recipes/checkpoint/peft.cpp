#include "recipes/checkpoint/peft.h"

#include "core/error.h"
#include "core/io/file.h"
#include "core/io/safetensors.h"

#include <nlohmann/json.hpp>

#include <cmath>
#include <optional>
#include <regex>
#include <string_view>
#include <utility>

namespace lectern {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::string_view kA = ".lora_A.weight", kB = ".lora_B.weight";

/// A setting that lectern can only read as `usual`: anything else would compute something else.
struct FixedSetting {
  const char* key;
  json usual;
};

const std::vector<FixedSetting>& fixed_settings() {
  static const std::vector<FixedSetting> settings = {{"use_dora", false},
                                                     {"bias", "none"},
                                                     {"lora_bias", false},
                                                     {"fan_in_fan_out", false},
                                                     {"use_qalora", false},
                                                     {"alora_invocation_tokens", nullptr},
                                                     {"layer_replication", nullptr},
                                                     {"modules_to_save", nullptr},
                                                     {"trainable_token_indices", nullptr}};
  return settings;
}

void check_settings(const json& config, const fs::path& file) {
  const std::string type = config.value("peft_type", json("nothing")).dump();
  if (type != "\"LORA\"")
    fail<ConfigError>(fmt::format("{}: peft_type must be \"LORA\", got {}", file.string(), type));
  for (const auto& [key, usual] : fixed_settings()) {
    const auto found = config.find(key);
    if (found == config.end() || found->is_null() || *found == usual) continue;
    if (found->is_array() && found->empty()) continue;
    fail<ConfigError>(fmt::format("{}: {} must be {} (lectern has no other), got {}", file.string(),
                                  key, usual.dump(), found->dump()));
  }
}

double number_of(const json& config, const char* key, const fs::path& file) {
  const auto found = config.find(key);
  if (found == config.end() || !found->is_number() || found->get<double>() <= 0)
    fail<ConfigError>(fmt::format("{}: {} must be a number above 0, got {}", file.string(), key,
                                  found == config.end() ? "nothing" : found->dump()));
  return found->get<double>();
}

/// What rank_pattern or alpha_pattern says of a module, which PEFT matches as the end of its name.
std::optional<double> pattern_for(const json& config, const char* key, const std::string& module) {
  const auto patterns = config.find(key);
  if (patterns == config.end() || !patterns->is_object()) return std::nullopt;
  for (const auto& [pattern, value] : patterns->items())
    if (std::regex_match(module, std::regex("(.*\\.)?(" + pattern + ")")))
      return value.get<double>();
  return std::nullopt;
}

}  // namespace

bool is_peft_folder(const fs::path& path) { return fs::exists(path / kPeftConfig); }

std::string published_of_peft(const std::string& tensor, const ModelConfig& config) {
  std::string name = tensor;
  if (name.starts_with(kPeftPrefix)) name.erase(0, std::string_view(kPeftPrefix).size());
  for (const std::string_view adapter : {".lora_A.default.weight", ".lora_B.default.weight"})
    if (name.ends_with(adapter)) name.erase(name.size() - adapter.size() + 7, 8);
  for (const std::string_view end : {kA, kB}) {
    if (!name.ends_with(end)) continue;
    const std::string matrix = name.substr(0, name.size() - end.size());
    return matrix_of_tensor(config.published_name(matrix + ".weight")) + std::string(end);
  }
  return name;
}

AdapterInfo read_peft_info(const fs::path& folder, const ModelConfig& config) {
  const fs::path file = folder / kPeftConfig;
  const json in = parse_json(read_file(file), file.string());
  check_settings(in, file);
  AdapterInfo out;
  out.rank = std::llround(number_of(in, "r", file));
  out.alpha = number_of(in, "lora_alpha", file);
  out.rslora = in.value("use_rslora", false);
  if (const auto base = in.find("base_model_name_or_path"); base != in.end() && base->is_string())
    out.base = base->get<std::string>();
  const SafetensorsFile tensors = SafetensorsFile::open(folder / kPeftWeights);
  for (const std::string& stored : tensors.names()) {
    const std::string name = published_of_peft(stored, config);
    if (name.ends_with(kB)) continue;
    if (!name.ends_with(kA))
      fail<IoError>(fmt::format("{}: tensor {} is no lora_A or lora_B of a matrix",
                                tensors.path().string(), stored));
    const std::string matrix = name.substr(0, name.size() - kA.size());
    const Shape shape = tensors.shape_of(stored);
    if (shape.ndim() != 2)
      fail<IoError>(fmt::format("{}: tensor {} must be [rank, columns], got {}",
                                tensors.path().string(), stored, shape));
    // Ranks that PEFT doubles because it holds gate and up of experts as one, it doubles with
    // alpha: the factor is theirs.
    const double rank = pattern_for(in, "rank_pattern", matrix).value_or(out.rank);
    const double alpha = pattern_for(in, "alpha_pattern", matrix).value_or(out.alpha);
    out.shape[matrix] = {shape[0], low_rank_scale(std::llround(rank), alpha, out.rslora)};
  }
  if (out.shape.empty()) fail<IoError>(fmt::format("{}: holds no pairs", tensors.path().string()));
  return out;
}

}  // namespace lectern
