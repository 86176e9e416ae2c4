// The layouts that other programs have for DeepSeek-OCR 2.
#include "recipes/export/ocr2.h"

#include "core/error.h"
#include "nn/ocr2/model.h"

#include <nlohmann/json.hpp>

#include <cmath>

namespace lectern {
namespace {

using nlohmann::json;

using ocr2::config_of;

/// transformers' processor expects ceil(size / patch_size / downsample_ratio)^2 tokens of a view.
/// That is the number of queries for 1024 and 768 pixels with ratio 4; for a model with other views
/// the ratio is chosen so that the count comes out right.
double downsample_ratio(const Ocr2Config& config) {
  const auto side = [&](std::int64_t pixels, double ratio) {
    return std::ceil(static_cast<double>(pixels) / static_cast<double>(config.patch_size()) /
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
      static_cast<double>(config.reading.global_size) / static_cast<double>(config.patch_size());
  const double queries =
      std::sqrt(static_cast<double>(config.decoder_tokens(config.reading.global_size)));
  return cells / (queries - 0.5);  // half a token from either neighbour
}

}  // namespace

const Ocr2Config& ocr2::config_of(const ExportSource& source) {
  return dynamic_cast<const Ocr2Config&>(source.config());
}

json ocr2::hf_processor(const Ocr2Config& config) {
  const std::int64_t tile =
      config.reading.crop ? config.reading.tile_size : config.reading.global_size;
  const double ratio = downsample_ratio(config);
  return {
      {"processor_class", "DeepseekOcr2Processor"},
      {"patch_size", config.patch_size()},
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

namespace {

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
          {"patch_size", config.patch_size()},
          {"sft_format", "deepseek"}};
}

void check(const ExportSource& source, const ExportOptions& options) {
  check_f32(options);
  check_plain_residual(source.model());
  const Ocr2Config& config = config_of(source);
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
}

/// transformers' own `deepseek_ocr2`.
std::int64_t write_hf(const ExportSource& source, const std::filesystem::path& folder,
                      const ExportOptions&) {
  const Ocr2Config& config = config_of(source);
  const auto names = write_weights(source, folder / "model.safetensors");
  write_json(folder / "config.json", to_hf_json(config));
  write_json(folder / "processor_config.json", ocr2::hf_processor(config));
  write_token_files(source.model(), folder);
  return std::ssize(names);
}

/// The deepseek-ai layout that vLLM and SGLang load.
std::int64_t write_original(const ExportSource& source, const std::filesystem::path& folder,
                            const ExportOptions&) {
  const Ocr2Config& config = config_of(source);
  // The published checkpoint's own way of counting shards: five digits of six.
  const std::string file = "model-00001-of-000001.safetensors";
  const auto names = write_weights(source, folder / file);
  const auto values = static_cast<std::size_t>(source.model().model->store().parameter_count());
  save_index(folder, "model", file, names, values * sizeof(float));
  write_json(folder / "config.json", to_original_json(config));
  write_json(folder / "processor_config.json", original_processor(config));
  write_token_files(source.model(), folder);
  return std::ssize(names);
}

}  // namespace

namespace ocr2 {

std::vector<ExportLayout> export_layouts() {
  return {{"ocr2", "hf", check, write_hf},
          {"ocr2", "original", check, write_original},
          gguf_layout(),
          encoder_layout()};
}

}  // namespace ocr2

}  // namespace lectern
