#include "recipes/export/export.h"

#include "core/io/file.h"
#include "core/io/safetensors.h"
#include "core/ops/convert.h"
#include "data/tokenizer/template.h"
#include "recipes/export/layout.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstring>

namespace lectern {
namespace {

using nlohmann::json;

/// Whether a tensor is rounded in a bf16 folder: what is added to and multiplied by every value of
/// a row (norms, biases) is little, and stays exact.
bool is_rounded(const Tensor& tensor, DType dtype) {
  return dtype == DType::bf16 && tensor.ndim() >= 2;
}

/// The tokenizer.json of an export. Other programs ask it for the tokens of a whole prompt; our own
/// folder has the file that the shards were made with, byte for byte.
std::string tokenizer_json(const LoadedModel& loaded, const ExportLayout* layout) {
  if (layout == nullptr) return loaded.tokenizer.json();
  const std::int64_t begin = loaded.model->config().decoder.bos_token_id;
  return json_with_begin_token(loaded.tokenizer, static_cast<std::int32_t>(begin));
}

void write_own_files(const LoadedModel& loaded, const std::filesystem::path& folder, DType dtype) {
  NamedTensors tensors;
  for (const auto& [name, tensor] : loaded.model->store().file_order_state())
    tensors.emplace_back(
        name, is_rounded(tensor, dtype) ? convert(tensor.contiguous(), DType::bf16) : tensor);
  save_safetensors(folder / "model.safetensors", tensors, {{"format", "pt"}});
  json config = loaded.model->config().to_json();
  if (dtype == DType::bf16) config["dtype"] = "bfloat16";
  write_json(folder / "config.json", config);
}

const ExportLayout* layout_of(const LoadedModel& loaded, const std::string& format) {
  const std::string_view family = loaded.model->config().family();
  std::string known;
  for (const ExportLayout& layout : export_layouts()) {
    if (layout.family != family) continue;
    if (layout.name == format) return &layout;
    known += (known.empty() ? "" : ", ") + layout.name;
  }
  if (format == "lectern") return nullptr;
  fail<ConfigError>(fmt::format("--format: must be {}lectern for this model ({}), got {}",
                                known.empty() ? "" : known + " or ", family, format));
}

/// Loads the export into a fresh model and compares every tensor's bytes, and the tokenizer's.
void verify(const LoadedModel& loaded, const std::filesystem::path& folder, DType dtype,
            const std::string& tokenizer) {
  const LoadedModel again = load_model_folder(folder);
  const auto want = loaded.model->store().state();
  const auto got = again.model->store().state();
  for (std::size_t i = 0; i < want.size(); ++i) {
    Tensor a = want[i].second.contiguous();
    if (is_rounded(a, dtype)) a = convert(convert(a, DType::bf16), DType::f32);
    const Tensor b = got.at(i).second.contiguous();
    if (got[i].first != want[i].first || a.shape() != b.shape() ||
        std::memcmp(a.raw(), b.raw(), a.bytes()) != 0)
      fail<IoError>(fmt::format("{}: tensor {} differs from the model after it was read back",
                                folder.string(), want[i].first));
  }
  if (again.tokenizer.json() != tokenizer)
    fail<IoError>(
        fmt::format("{}: tokenizer.json differs after it was read back", folder.string()));
}

/// The files under a temporary name, read back, then renamed into place.
ExportReport write_folder(const LoadedModel& loaded, const ExportLayout* layout,
                          const std::filesystem::path& folder, DType dtype) {
  if (std::filesystem::exists(folder) &&
      !(std::filesystem::is_directory(folder) && std::filesystem::is_empty(folder)))
    fail<ConfigError>(fmt::format("{}: must be a new or empty folder", folder.string()));

  auto target = std::filesystem::absolute(folder).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();
  const auto temporary = target.parent_path() / ("." + target.filename().string() + ".tmp");
  std::error_code ignored;
  try {
    std::filesystem::remove_all(temporary);
    std::filesystem::create_directories(temporary);
    if (layout == nullptr)
      write_own_files(loaded, temporary, dtype);
    else
      layout->write(loaded, temporary);
    const std::string tokenizer = tokenizer_json(loaded, layout);
    write_file(temporary / "tokenizer.json", tokenizer);
    verify(loaded, temporary, dtype, tokenizer);
    std::filesystem::remove(target);  // an empty folder
    std::filesystem::rename(temporary, target);
  } catch (const std::filesystem::filesystem_error& error) {
    std::filesystem::remove_all(temporary, ignored);
    fail<IoError>(fmt::format("{}: cannot write: {}", target.string(), error.code().message()));
  } catch (...) {
    std::filesystem::remove_all(temporary, ignored);
    throw;
  }
  ExportReport report;
  report.folder = target;
  report.tensors = static_cast<std::int64_t>(loaded.model->store().state().size());
  for (const auto& entry : std::filesystem::directory_iterator(target)) {
    report.files.push_back(entry.path().filename().string());
    report.bytes += static_cast<std::int64_t>(entry.file_size());
  }
  std::sort(report.files.begin(), report.files.end());
  return report;
}

}  // namespace

std::vector<std::string> export_formats() {
  std::vector<std::string> out;
  for (const ExportLayout& layout : export_layouts())
    if (std::find(out.begin(), out.end(), layout.name) == out.end()) out.push_back(layout.name);
  out.emplace_back("lectern");
  return out;
}

ExportReport export_model(const LoadedModel& loaded, const std::string& format,
                          const std::filesystem::path& folder, DType dtype) {
  const ExportLayout* layout = layout_of(loaded, format);
  if (layout != nullptr) {
    if (dtype != DType::f32)
      fail<ConfigError>(
          fmt::format("export: dtype must be f32 for other programs, got {}", name_of(dtype)));
    layout->check(loaded);
  }
  return write_folder(loaded, layout, folder, dtype);
}

}  // namespace lectern
