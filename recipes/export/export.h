// Writing a model for other programs, and checking what was written.
#pragma once

#include "nn/ocr2/model.h"
#include "recipes/checkpoint/model_folder.h"

#include <filesystem>
#include <string>
#include <vector>

namespace lectern {

enum class ExportFormat {
  hf,        ///< transformers' own `deepseek_ocr2`
  original,  ///< the deepseek-ai layout that vLLM and SGLang load
  lectern,   ///< our own: any model, config.json, model.safetensors and tokenizer.json only
};

/// "hf", "original" or "lectern"; throws ConfigError for anything else.
ExportFormat export_format_from(const std::string& name);

struct ExportReport {
  std::filesystem::path folder;
  std::vector<std::string> files;
  std::int64_t tensors = 0;
  std::int64_t bytes = 0;  ///< of all files
};

/// Writes weights (published names, f32; for lectern also bf16 in all tensors of two dimensions and
/// more), configuration, tokenizer and processor files into a new
/// folder, reads everything back and compares it bit for bit with the model as rounded. The folder
/// is complete or absent. Throws ConfigError when the target exists and is not empty, or when the
/// format cannot hold the model (query tables other than 144 and 256 rows) or the dtype; IoError on
/// files.
ExportReport export_model(const LoadedModel& loaded, ExportFormat format,
                          const std::filesystem::path& folder, DType dtype = DType::f32);

}  // namespace lectern
