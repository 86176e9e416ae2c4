// The table of model families. A family is a room nn/<name> (config, model, weights' names) that
// defines `Family lectern::<name>::family()`, and its name in LECTERN_FAMILIES (CMakeLists.txt),
// from which the table is made.
#pragma once

#include "nn/model_config.h"

#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace lectern {

struct Family {
  std::string name;   ///< as in LECTERN_FAMILIES
  std::string title;  ///< "DeepSeek-OCR 2"
  /// The configuration of the published model.
  std::function<std::unique_ptr<ModelConfig>()> released;
  /// Whether a config.json, an object, is of this family.
  std::function<bool(const nlohmann::json& config)> matches;
  /// Throws ConfigError naming file, field, found and expected.
  std::function<std::unique_ptr<ModelConfig>(const nlohmann::json& config, const std::string& name)>
      parse;
};

/// All families, in the order in which they are asked.
const std::vector<Family>& families();
/// Puts one in front of the table, for programs that bring a family of their own.
void add_family(Family family);

/// The configuration in a config.json. Throws ConfigError when it belongs to no family, or as the
/// family does; IoError when the file cannot be read.
std::unique_ptr<ModelConfig> read_model_config(const std::filesystem::path& path);
std::unique_ptr<ModelConfig> parse_model_config(const nlohmann::json& json,
                                                const std::string& name);

}  // namespace lectern
