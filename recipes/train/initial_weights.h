// The model that a recipe names, and where its first weights come from.
#pragma once

#include "data/tokenizer/tokenizer.h"
#include "nn/ocr2/model.h"
#include "recipes/recipe/recipe.h"

#include <filesystem>

namespace lectern {

/// The configuration that the recipe names, with what the recipe says of it. Throws IoError,
/// ConfigError.
Ocr2Config model_config(const Recipe& recipe);

/// The same; the tokenizer must fit it.
Ocr2Config model_config(const Recipe& recipe, const Tokenizer& tokenizer);

/// Applies model.init, init_encoder, init_decoder, init_sam and init_qwen2 in this order, each over
/// what came before. Throws IoError naming file and tensor when something does not fit.
void load_initial_weights(const ModelRecipe& recipe, Ocr2Model& model);

/// SAM-base: the vision tokenizer's ViT and neck, from segment-anything's names
/// (`image_encoder.blocks...`) or transformers' (`vision_encoder.layers...`). The two compressing
/// convolutions are not part of SAM and stay as they are.
void load_sam(const std::filesystem::path& path, Ocr2Model& model);

/// Qwen2-0.5B: the layers and norm of the LM encoder, from `model.layers...`. Embeddings and head
/// are left out; queries and hyper-connections are not part of Qwen2 and stay as they are.
void load_qwen2(const std::filesystem::path& path, Ocr2Model& model);

}  // namespace lectern
