// A low-rank adapter as what a recipe trains ([lora], model.adapter).
#pragma once

#include "nn/adapter.h"
#include "recipes/checkpoint/adapter_folder.h"
#include "recipes/recipe/recipe.h"

#include <filesystem>
#include <memory>
#include <vector>

namespace lectern {

/// Which matrices have pairs, and of what model; without the model's hash. Throws ConfigError for a
/// target that is no part and no matrix, naming the nearest part, and where model.adapter is not
/// what [lora] says.
AdapterInfo adapter_of(const Recipe& recipe, const ModelConfig& config);

/// Which units of the model have something that trains.
std::vector<bool> trained_units(const Recipe& recipe, const ModelConfig& config);

/// The model for the recipe to train: with an adapter its values are absent, until
/// load_initial_weights() maps them, and its matrices are bf16 where the file has them so and the
/// recipe computes so: then nothing is copied.
std::unique_ptr<OcrModel> make_model(const Recipe& recipe, const ModelConfig& config,
                                     const ModelPlacement& placement);

}  // namespace lectern
