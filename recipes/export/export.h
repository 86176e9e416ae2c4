// Writing a model for other programs, and checking what was written.
#pragma once

#include "core/io/gguf_types.h"
#include "recipes/export/source.h"

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace lectern {

/// The names that --format may have for a model of some family.
std::vector<std::string> export_formats();

struct ExportReport {
  std::filesystem::path folder;
  std::vector<std::string> files;
  std::int64_t tensors = 0;
  std::int64_t bytes = 0;  ///< of all files
};

/// What the user may choose of an export.
struct ExportOptions {
  /// Of matrices: "lectern" and "encoder" may have bf16.
  DType dtype = DType::f32;
  /// "gguf" alone: of the matrices of the language model; of those of the vision file.
  std::optional<GgufType> type = {}, vision_type = {};
  /// Write the model with its adapter's pairs added; needed where there is one, but for formats
  /// that hold the adapter alone ("peft", "gguf-lora").
  bool merge = false;
};

/// `format` is a layout of the model's family (layout.h), or "lectern": our own, which holds any
/// model in config.json, model.safetensors and tokenizer.json. Writes weights (published names,
/// f32; for lectern also bf16 in all tensors of two dimensions and more), configuration, tokenizer
/// and processor files into a new folder (for other programs the tokenizer puts the begin token
/// before a text, as every training sample has it), reads everything back and compares it bit for
/// bit with the model as rounded (GGUF: within what its types round). Beside the mapped source
/// never more than one tensor is in memory. The folder is complete or absent. Throws ConfigError
/// when the target exists and is not empty, or when the format cannot hold the model (query tables
/// other than 144 and 256 rows) or the options; IoError on files.
ExportReport export_model(const ExportSource& source, const std::string& format,
                          const std::filesystem::path& folder, const ExportOptions& options = {});

}  // namespace lectern
