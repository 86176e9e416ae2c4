// The model that a recipe names, and where its first weights come from.
#pragma once

#include "data/tokenizer/tokenizer.h"
#include "nn/model.h"
#include "recipes/recipe/recipe.h"

#include <memory>
#include <string>

namespace lectern {

/// The configuration that the recipe names, with what the recipe says of it. Throws IoError,
/// ConfigError.
std::unique_ptr<ModelConfig> model_config(const Recipe& recipe);

/// The same; the tokenizer must fit it.
std::unique_ptr<ModelConfig> model_config(const Recipe& recipe, const Tokenizer& tokenizer);

/// Applies model.init, init_encoder, init_decoder, init_sam and init_qwen2 in this order, each over
/// what came before. Says where the weights are from: "random weights, encoder of out/a". Throws
/// IoError naming file and tensor when something does not fit or a checkpoint is damaged.
std::string load_initial_weights(const ModelRecipe& recipe, OcrModel& model);

}  // namespace lectern
