#include "recipes/export/export.h"

#include "core/io/file.h"
#include "data/tokenizer/template.h"
#include "recipes/export/adapter.h"
#include "recipes/export/layout.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace lectern {
namespace {

using nlohmann::json;

/// The tokenizer.json of an export. Other programs ask it for the tokens of a whole prompt; our own
/// folder has the file that the shards were made with, byte for byte.
std::string tokenizer_json(const ExportSource& source, bool is_ours) {
  const Tokenizer& tokenizer = source.model().tokenizer;
  if (is_ours) return tokenizer.json();
  const std::int64_t begin = source.config().decoder.bos_token_id;
  return json_with_begin_token(tokenizer, static_cast<std::int32_t>(begin));
}

void check_dtype_alone(const ExportOptions& options) {
  if (options.type || options.vision_type)
    fail<ConfigError>("export: --type and --vision-type are for --format gguf");
}

std::int64_t write_own_files(const ExportSource& source, const std::filesystem::path& folder,
                             const ExportOptions& options) {
  const auto names = write_weights(source, folder / "model.safetensors", options.dtype);
  json config = source.config().to_json();
  if (options.dtype == DType::bf16) config["dtype"] = "bfloat16";
  write_json(folder / "config.json", config);
  return std::ssize(names);
}

/// Our own layout: any family's.
const ExportLayout& own_layout() {
  static const ExportLayout layout = {
      "", "lectern",
      [](const ExportSource&, const ExportOptions& options) { check_dtype_alone(options); },
      write_own_files};
  return layout;
}

/// Layouts that any family has.
const std::vector<ExportLayout>& shared_layouts() {
  static const std::vector<ExportLayout> layouts = {own_layout(), peft_layout(),
                                                    gguf_lora_layout()};
  return layouts;
}

/// A model is merged when it was asked for, and never in silence.
void check_merge(const ExportSource& source, const std::string& format,
                 const ExportOptions& options) {
  if (format == peft_layout().name || format == gguf_lora_layout().name) return;
  if (source.adapter() != nullptr && !options.merge)
    fail<ConfigError>(fmt::format(
        "--format {}: --merge must be given to write the model with its adapter added ({}); peft "
        "and gguf-lora write the adapter alone",
        format, source.model().folder.string()));
  if (source.adapter() == nullptr && options.merge)
    fail<ConfigError>("--merge: there is no adapter: name one with --adapter");
}

const ExportLayout& layout_of(const ExportSource& source, const std::string& format) {
  const std::string_view family = source.config().family();
  std::string known;
  for (const ExportLayout& layout : export_layouts()) {
    if (layout.family != family) continue;
    if (layout.name == format) return layout;
    known += (known.empty() ? "" : ", ") + layout.name;
  }
  for (const ExportLayout& layout : shared_layouts()) {
    if (layout.name == format) return layout;
    known += (known.empty() ? "" : ", ") + layout.name;
  }
  fail<ConfigError>(fmt::format("--format: must be one of {} for this model ({}), got {}", known,
                                family, format));
}

/// Opens the export as the folder of a model and compares every tensor, and the tokenizer.
void verify_model_folder(const ExportSource& source, const std::filesystem::path& folder,
                         DType dtype, const std::string& tokenizer) {
  const ExportSource again = ExportSource::open(folder);
  for (const auto& [name, shape] : source.tensors()) {
    check_written(source, name, again.read(name), dtype, folder);
    again.release(name);
  }
  if (again.model().tokenizer.json() != tokenizer)
    fail<IoError>(
        fmt::format("{}: tokenizer.json differs after it was read back", folder.string()));
}

/// How many tensors were written.
std::int64_t write_and_verify(const ExportSource& source, const ExportLayout& layout,
                              const std::filesystem::path& folder, const ExportOptions& options) {
  const std::int64_t tensors = layout.write(source, folder, options);
  if (layout.verify) {
    layout.verify(source, folder, options);
    return tensors;
  }
  const std::string tokenizer = tokenizer_json(source, layout.name == own_layout().name);
  write_file(folder / "tokenizer.json", tokenizer);
  verify_model_folder(source, folder, options.dtype, tokenizer);
  return tensors;
}

/// The files under a temporary name, read back, then renamed into place.
ExportReport write_folder(const ExportSource& source, const ExportLayout& layout,
                          const std::filesystem::path& folder, const ExportOptions& options) {
  if (std::filesystem::exists(folder) &&
      !(std::filesystem::is_directory(folder) && std::filesystem::is_empty(folder)))
    fail<ConfigError>(fmt::format("{}: must be a new or empty folder", folder.string()));

  auto target = std::filesystem::absolute(folder).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();
  const auto temporary = target.parent_path() / ("." + target.filename().string() + ".tmp");
  std::error_code ignored;
  ExportReport report;
  try {
    std::filesystem::remove_all(temporary);
    std::filesystem::create_directories(temporary);
    report.tensors = write_and_verify(source, layout, temporary, options);
    std::filesystem::remove(target);  // an empty folder
    std::filesystem::rename(temporary, target);
  } catch (const std::filesystem::filesystem_error& error) {
    std::filesystem::remove_all(temporary, ignored);
    fail<IoError>(fmt::format("{}: cannot write: {}", target.string(), error.code().message()));
  } catch (...) {
    std::filesystem::remove_all(temporary, ignored);
    throw;
  }
  report.folder = target;
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
  for (const ExportLayout& layout : shared_layouts()) out.push_back(layout.name);
  return out;
}

ExportReport export_model(const ExportSource& source, const std::string& format,
                          const std::filesystem::path& folder, const ExportOptions& options) {
  const ExportLayout& layout = layout_of(source, format);
  check_merge(source, format, options);
  layout.check(source, options);
  return write_folder(source, layout, folder, options);
}

}  // namespace lectern
