#include "recipes/train/initial_weights.h"

#include "nn/families.h"
#include "nn/weights.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/train/training_data.h"

#include <string>

namespace lectern {
namespace {

/// Loads parameters under `prefixes`, or all, from a model folder, a checkpoint or a run. Mappings
/// of residual streams among them are converted when they were stored in another convention than
/// the model's. Returns the folder.
std::string load_from(const std::string& path, const std::vector<std::string>& prefixes,
                      OcrModel& model) {
  const auto folder = resolve_model_folder(path);
  check_not_damaged(folder);
  load_weights(model, folder, prefixes);
  const ResidualConfig& residual = model.config().residual;
  if (residual.kind != ResidualKind::mhc || residual.exact) return folder.string();
  const auto stored = read_model_config(folder / "config.json");
  for (const std::string& prefix : prefixes.empty() ? std::vector<std::string>{""} : prefixes)
    convert_convention(model.store(), stored->residual.convention, residual.convention, prefix);
  return folder.string();
}

}  // namespace

std::unique_ptr<ModelConfig> model_config(const Recipe& recipe) {
  std::filesystem::path path = recipe.model.config;
  if (std::filesystem::is_directory(path)) path = resolve_model_folder(path) / "config.json";
  auto config = read_model_config(path);
  config->reading = reading_settings(recipe);
  config->apply(model_settings(recipe.model));
  return config;
}

std::unique_ptr<ModelConfig> model_config(const Recipe& recipe, const Tokenizer& tokenizer) {
  auto config = model_config(recipe);
  check_tokenizer(tokenizer, *config, recipe.data.tokenizer);
  return config;
}

std::string load_initial_weights(const ModelRecipe& recipe, OcrModel& model) {
  const ModelParts& parts = model.config().parts();
  std::string from = "random weights";
  if (recipe.init != "random") from = "the weights of " + load_from(recipe.init, {}, model);
  if (!recipe.init_encoder.empty())
    from += ", encoder of " + load_from(recipe.init_encoder, parts.encoder, model);
  if (!recipe.init_decoder.empty())
    from += ", decoder of " + load_from(recipe.init_decoder, parts.decoder, model);
  if (!recipe.init_sam.empty()) {
    model.load_pretrained("sam", recipe.init_sam);
    from += ", SAM of " + recipe.init_sam;
  }
  if (!recipe.init_qwen2.empty()) {
    model.load_pretrained("qwen2", recipe.init_qwen2);
    from += ", Qwen2 of " + recipe.init_qwen2;
  }
  return from;
}

}  // namespace lectern
