// Layouts of other programs, and what the ones of a family have in common.
//
// A family's layouts are in recipes/export/<family>*.cpp, which define
// `std::vector<ExportLayout> lectern::<family>::export_layouts()`.
#pragma once

#include "recipes/export/export.h"
#include "recipes/export/source.h"

#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace lectern {

struct ExportLayout {
  std::string family, name;  ///< of the model; what --format says ("hf")
  /// Throws ConfigError naming what the layout cannot hold, of the model or of the options.
  std::function<void(const ExportSource& source, const ExportOptions& options)> check;
  /// Writes weights, configuration and what else belongs there into an existing folder. Gives back
  /// how many of the source's tensors it wrote.
  std::function<std::int64_t(const ExportSource& source, const std::filesystem::path& folder,
                             const ExportOptions& options)>
      write;
  /// Reads what was written and throws IoError unless it says what the source does. Without it the
  /// folder is that of a whole model: it gets a tokenizer.json, and every tensor is compared.
  std::function<void(const ExportSource& source, const std::filesystem::path& folder,
                     const ExportOptions& options)>
      verify = {};
};

/// Those of every family.
const std::vector<ExportLayout>& export_layouts();

/// Throws ConfigError unless the residual is plain: no other program has hyper-connections.
void check_plain_residual(const LoadedModel& model);
/// Throws ConfigError unless the options leave all numbers f32.
void check_f32(const ExportOptions& options);
void write_json(const std::filesystem::path& path, const nlohmann::json& value);
/// generation_config.json, tokenizer_config.json and special_tokens_map.json.
void write_token_files(const LoadedModel& model, const std::filesystem::path& folder);

/// Writes tensors of the source, one at a time, as one safetensors file; in bf16 those of two
/// dimensions and more are rounded, all others stay f32: norms and biases are little. All tensors
/// where `prefixes` are empty. Gives the names back, in the order of the file.
std::vector<std::string> write_weights(const ExportSource& source,
                                       const std::filesystem::path& path, DType dtype = DType::f32,
                                       const std::vector<std::string>& prefixes = {});
/// Throws IoError, naming file and tensor, unless `written` has the source's value of `name`, to
/// the bit, as write_weights() rounds it. The pages of both are given back.
void check_written(const ExportSource& source, const std::string& name, const Tensor& written,
                   DType dtype, const std::filesystem::path& where);

}  // namespace lectern
