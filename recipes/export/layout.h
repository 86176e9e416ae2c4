// Layouts of other programs, and what the ones of a family have in common.
//
// A family's layouts are in recipes/export/<family>.cpp, which defines
// `std::vector<ExportLayout> lectern::<family>::export_layouts()`.
#pragma once

#include "recipes/checkpoint/model_folder.h"

#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace lectern {

struct ExportLayout {
  std::string family, name;  ///< of the model; what --format says ("hf")
  /// Throws ConfigError naming what the layout cannot hold.
  std::function<void(const LoadedModel& model)> check;
  /// Writes weights, configuration and processor into an existing folder.
  std::function<void(const LoadedModel& model, const std::filesystem::path& folder)> write;
};

/// Those of every family.
const std::vector<ExportLayout>& export_layouts();

/// Throws ConfigError unless the residual is plain: no other program has hyper-connections.
void check_plain_residual(const LoadedModel& model);
void write_json(const std::filesystem::path& path, const nlohmann::json& value);
/// generation_config.json, tokenizer_config.json and special_tokens_map.json.
void write_token_files(const LoadedModel& model, const std::filesystem::path& folder);

}  // namespace lectern
