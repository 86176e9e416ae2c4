#include "recipes/train/adapter_setup.h"

#include "core/error.h"
#include "core/io/safetensors.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/config/nearest.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace lectern {
namespace {

AdapterInfo adapter_of_table(const LoraRecipe& lora, const ModelConfig& config) {
  AdapterInfo out;
  out.rank = lora.rank;
  out.alpha = lora.alpha;
  out.rslora = lora.rslora;
  const PairShape pair = {lora.rank, low_rank_scale(lora.rank, lora.alpha, lora.rslora)};
  for (const std::string& target : lora.targets) {
    AdapterShape here = adapter_shape(config, config.prefixes_of({target}), pair);
    if (here.empty()) {
      std::vector<std::string> names;
      for (const auto& [name, patterns] : config.named_parts()) names.push_back(name);
      const std::string nearest = nearest_name(target, names);
      fail<ConfigError>(fmt::format(
          "lora.targets: must name parts or matrices of the model, got \"{}\"{}", target,
          nearest.empty() ? fmt::format(" (parts are {})", fmt::join(names, ", "))
                          : fmt::format("; did you mean \"{}\"?", nearest)));
    }
    out.shape.merge(here);
  }
  return out;
}

/// Whether the weights in a folder are stored as bf16: its largest tensor tells.
bool is_stored_in_bf16(const std::filesystem::path& folder) {
  const SafetensorsFolder tensors = SafetensorsFolder::open(folder);
  std::int64_t largest = -1;
  bool is_bf16 = false;
  for (const std::string& name : tensors.names()) {
    const std::int64_t elements = tensors.shape_of(name).numel();
    if (elements <= largest) continue;
    largest = elements;
    is_bf16 = tensors.dtype_of(name) == DType::bf16;
  }
  return is_bf16;
}

}  // namespace

AdapterInfo adapter_of(const Recipe& recipe, const ModelConfig& config) {
  if (recipe.model.adapter.empty()) return adapter_of_table(recipe.lora.value(), config);
  AdapterInfo out = read_adapter_info(recipe.model.adapter, config);
  if (!recipe.lora) return out;
  const AdapterShape wanted = adapter_of_table(*recipe.lora, config).shape;
  if (wanted != out.shape)
    fail<ConfigError>(fmt::format(
        "[lora] must say what model.adapter has, or be left out: {} has {} pairs, the first of "
        "rank {} at {}; [lora] {} pairs of rank {}",
        recipe.model.adapter, out.shape.size(), out.shape.begin()->second.rank,
        out.shape.begin()->first, wanted.size(), recipe.lora->rank));
  return out;
}

std::vector<bool> trained_units(const Recipe& recipe, const ModelConfig& config) {
  if (!recipe.adapts()) return config.trained_units(config.prefixes_of(recipe.freeze));
  std::vector<std::string> tensors;
  for (const auto& [matrix, pair] : adapter_of(recipe, config).shape)
    tensors.push_back(matrix + ".weight");
  return config.units_of(tensors);
}

std::unique_ptr<OcrModel> make_model(const Recipe& recipe, const ModelConfig& config,
                                     const ModelPlacement& placement) {
  const auto seed = static_cast<std::uint64_t>(recipe.seed);
  if (!recipe.adapts())
    return config.make(seed, DType::f32, ParameterValues::initialised, placement);
  const bool is_bf16 = compute_dtype_of(recipe.dtype) == DType::bf16 &&
                       is_stored_in_bf16(resolve_model_folder(recipe.model.init));
  return config.make(seed, is_bf16 ? DType::bf16 : DType::f32, ParameterValues::absent, placement);
}

}  // namespace lectern
