#include "recipes/export/export.h"

#include "core/io/file.h"
#include "core/io/safetensors.h"
#include "core/ops/convert.h"
#include "nn/ocr2/weights.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace lectern {
namespace {

using nlohmann::json;

/// Name of the special token with this id, as tokenizer_config.json wants it.
std::string token_name(const Tokenizer& tokenizer, std::int64_t id) {
  return tokenizer.id_to_token(static_cast<std::int32_t>(id)).value_or("");
}

json tokenizer_config(const LoadedModel& loaded) {
  const TextConfig& text = loaded.model->config().text;
  return {{"bos_token", token_name(loaded.tokenizer, text.bos_token_id)},
          {"eos_token", token_name(loaded.tokenizer, text.eos_token_id)},
          {"pad_token", token_name(loaded.tokenizer, text.pad_token_id)},
          {"add_bos_token", true},
          {"add_eos_token", false},
          {"clean_up_tokenization_spaces", false},
          {"model_max_length", text.max_position_embeddings},
          {"tokenizer_class", "PreTrainedTokenizerFast"}};
}

json special_tokens_map(const LoadedModel& loaded) {
  const json config = tokenizer_config(loaded);
  return {{"bos_token", config["bos_token"]},
          {"eos_token", config["eos_token"]},
          {"pad_token", config["pad_token"]}};
}

json generation_config(const TextConfig& text) {
  return {{"_from_model_config", true},
          {"bos_token_id", text.bos_token_id},
          {"eos_token_id", text.eos_token_id},
          {"pad_token_id", text.pad_token_id},
          {"use_cache", true}};
}

/// transformers' processor expects ceil(size / patch_size / downsample_ratio)^2 tokens of a view.
/// That is the number of queries for 1024 and 768 pixels with ratio 4; for a model with other views
/// the ratio is chosen so that the count comes out right.
double downsample_ratio(const Ocr2Config& config) {
  const auto side = [&](std::int64_t pixels, double ratio) {
    return std::ceil(static_cast<double>(pixels) / static_cast<double>(config.sam.patch_size) /
                     ratio);
  };
  const auto fits = [&](double ratio) {
    const double global = side(config.reading.global_size, ratio);
    const double tile = side(config.reading.tile_size, ratio);
    return global * global ==
               static_cast<double>(config.decoder_tokens(config.reading.global_size)) &&
           (!config.reading.crop ||
            tile * tile == static_cast<double>(config.decoder_tokens(config.reading.tile_size)));
  };
  if (fits(4.0)) return 4.0;
  const double cells =
      static_cast<double>(config.reading.global_size) / static_cast<double>(config.sam.patch_size);
  const double queries =
      std::sqrt(static_cast<double>(config.decoder_tokens(config.reading.global_size)));
  return cells / (queries - 0.5);  // half a token from either neighbour
}

json hf_processor(const Ocr2Config& config) {
  const std::int64_t tile =
      config.reading.crop ? config.reading.tile_size : config.reading.global_size;
  const double ratio = downsample_ratio(config);
  return {
      {"processor_class", "DeepseekOcr2Processor"},
      {"patch_size", config.sam.patch_size},
      {"downsample_ratio", ratio == 4.0 ? json(4) : json(ratio)},
      {"image_processor",
       {{"image_processor_type", "DeepseekOcr2ImageProcessor"},
        {"background_color", {127, 127, 127}},
        {"crop_to_patches", config.reading.crop},
        {"do_convert_rgb", true},
        {"do_normalize", true},
        {"do_rescale", true},
        {"do_resize", true},
        {"image_mean", {0.5, 0.5, 0.5}},
        {"image_std", {0.5, 0.5, 0.5}},
        {"min_patches", 2},
        {"max_patches", 6},
        {"resample", 3},
        {"rescale_factor", 1.0 / 255.0},
        {"size", {{"height", config.reading.global_size}, {"width", config.reading.global_size}}},
        {"tile_size", tile}}}};
}

json original_processor(const Ocr2Config& config) {
  return {{"processor_class", "DeepseekVLV2Processor"},
          {"add_special_token", false},
          {"candidate_resolutions", {{config.reading.global_size, config.reading.global_size}}},
          {"downsample_ratio", 4},
          {"ignore_id", -100},
          {"image_mean", {0.5, 0.5, 0.5}},
          {"image_std", {0.5, 0.5, 0.5}},
          {"image_token", "<image>"},
          {"mask_prompt", false},
          {"normalize", true},
          {"pad_token", "<｜▁pad▁｜>"},
          {"patch_size", config.sam.patch_size},
          {"sft_format", "deepseek"}};
}

void write_json(const std::filesystem::path& path, const json& value) {
  write_file(path, value.dump(2) + "\n");
}

/// Whether a tensor is rounded in a bf16 folder: what is added to and multiplied by every value of
/// a row (norms, biases) is little, and stays exact.
bool is_rounded(const Tensor& tensor, DType dtype) {
  return dtype == DType::bf16 && tensor.ndim() >= 2;
}

void write_own_files(const LoadedModel& loaded, const std::filesystem::path& folder, DType dtype) {
  NamedTensors tensors;
  for (const auto& [name, tensor] : loaded.model->store().file_order_state())
    tensors.emplace_back(
        name, is_rounded(tensor, dtype) ? convert(tensor.contiguous(), DType::bf16) : tensor);
  save_safetensors(folder / "model.safetensors", tensors, {{"format", "pt"}});
  json config = to_hf_json(loaded.model->config());
  if (dtype == DType::bf16) config["dtype"] = "bfloat16";
  write_json(folder / "config.json", config);
  loaded.tokenizer.save(folder / "tokenizer.json");
}

void write_files(const LoadedModel& loaded, ExportFormat format,
                 const std::filesystem::path& folder, DType dtype) {
  const Ocr2Config& config = loaded.model->config();
  const bool hf = format == ExportFormat::hf;
  if (format == ExportFormat::lectern) {
    write_own_files(loaded, folder, dtype);
    return;
  }
  if (hf) {
    save_safetensors(folder / "model.safetensors", loaded.model->store().file_order_state(),
                     {{"format", "pt"}});
  } else {
    // The published checkpoint's own way of counting shards: five digits of six.
    save_indexed(folder, "model", "model-00001-of-000001.safetensors",
                 loaded.model->store().file_order_state());
  }
  write_json(folder / "config.json", hf ? to_hf_json(config) : to_original_json(config));
  write_json(folder / "processor_config.json",
             hf ? hf_processor(config) : original_processor(config));
  write_json(folder / "generation_config.json", generation_config(config.text));
  write_json(folder / "tokenizer_config.json", tokenizer_config(loaded));
  write_json(folder / "special_tokens_map.json", special_tokens_map(loaded));
  loaded.tokenizer.save(folder / "tokenizer.json");
}

/// Loads the export into a fresh model and compares every tensor's bytes.
void verify(const LoadedModel& loaded, const std::filesystem::path& folder, DType dtype) {
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
  if (again.tokenizer.json() != loaded.tokenizer.json())
    fail<IoError>(
        fmt::format("{}: tokenizer.json differs after it was read back", folder.string()));
}

/// The files under a temporary name, read back, then renamed into place.
ExportReport write_folder(const LoadedModel& loaded, ExportFormat format,
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
    write_files(loaded, format, temporary, dtype);
    verify(loaded, temporary, dtype);
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

ExportFormat export_format_from(const std::string& name) {
  if (name == "hf") return ExportFormat::hf;
  if (name == "original") return ExportFormat::original;
  if (name == "lectern") return ExportFormat::lectern;
  fail<ConfigError>(fmt::format("--format: must be hf, original or lectern, got {}", name));
}

ExportReport export_model(const LoadedModel& loaded, ExportFormat format,
                          const std::filesystem::path& folder, DType dtype) {
  if (format == ExportFormat::lectern) return write_folder(loaded, format, folder, dtype);
  const Ocr2Config& config = loaded.model->config();
  if (dtype != DType::f32)
    fail<ConfigError>(
        fmt::format("export: dtype must be f32 for other programs, got {}", name_of(dtype)));
  if (!config.residual.is_plain())
    fail<ConfigError>(fmt::format(
        "export: no format of other programs has hyper-connections, and this model has residual = "
        "\"{}\" (lectern.residual in config.json). It cannot be rewritten as a plain one; what can "
        "be exported is a model trained with residual = \"plain\". This one is complete as it is: "
        "the checkpoint {} (config.json, model-*.safetensors, tokenizer.json) is what lectern ocr, "
        "eval and train read",
        name_of(config.residual.kind), loaded.folder.string()));
  if (config.decoder_reads != DecoderReads::queries)
    fail<ConfigError>(fmt::format(
        "export: other programs give the decoder the rows of the queries, and this model's reads "
        "those of the visual tokens (lectern.decoder_reads = \"{}\" in config.json)",
        name_of(config.decoder_reads)));
  if (config.queries_768 != 144 || config.queries_1024 != 256)
    fail<ConfigError>(fmt::format(
        "export: other programs know query tables of 144 and 256 rows only, this model has {} "
        "and {} (lectern.queries_768, lectern.queries_1024 in config.json)",
        config.queries_768, config.queries_1024));
  return write_folder(loaded, format, folder, dtype);
}

}  // namespace lectern
