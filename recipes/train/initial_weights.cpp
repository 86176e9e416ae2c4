#include "recipes/train/initial_weights.h"

#include "nn/ocr2/weights.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/train/training_data.h"

#include <string>

namespace lectern {
namespace {

const std::vector<std::string> kDecoderPrefixes = {"model.embed_tokens.", "model.layers.",
                                                   "model.norm.", "model.hc_head.", "lm_head."};

/// SAM and Qwen2 files hold more than we take (mask decoder, embeddings).
constexpr bool kStrict = false;

std::string replace_prefix(const std::string& name, const std::string& from,
                           const std::string& to) {
  return name.starts_with(from) ? to + name.substr(from.size()) : name;
}

/// Loads `prefixes` from a model folder, a checkpoint or a run. Mappings of residual streams under
/// `mappings` are converted when they were stored in another convention than the model's.
void load_from(const std::string& path, const std::vector<std::string>& prefixes,
               const std::string& mappings, Ocr2Model& model) {
  const auto folder = resolve_model_folder(path);
  load_weights(model.store(), folder, prefixes);
  const ResidualConfig& residual = model.config().residual;
  if (residual.kind == ResidualKind::mhc && !residual.exact)
    convert_convention(model.store(), read_ocr2_config(folder / "config.json").residual.convention,
                       residual.convention, mappings);
}

}  // namespace

Ocr2Config model_config(const Recipe& recipe) {
  std::filesystem::path path = recipe.model.config;
  if (std::filesystem::is_directory(path)) path = resolve_model_folder(path) / "config.json";
  Ocr2Config config = read_ocr2_config(path);
  config.reading = reading_settings(recipe);
  apply_model_settings(recipe.model, config);
  return config;
}

Ocr2Config model_config(const Recipe& recipe, const Tokenizer& tokenizer) {
  Ocr2Config config = model_config(recipe);
  check_tokenizer(tokenizer, config, recipe.data.tokenizer);
  return config;
}

void load_sam(const std::filesystem::path& path, Ocr2Model& model) {
  const std::string ours = "model.sam_model.";
  load_weights(model.store(), path,
               {ours + "patch_embed.", ours + "pos_embed", ours + "blocks.", ours + "neck."},
               kStrict, [&](const std::string& name) {
                 const std::string renamed =
                     replace_prefix(replace_prefix(name, "image_encoder.", ours), "vision_encoder.",
                                    "model.vision_tower.sam_encoder.");
                 return published_name(renamed);
               });
}

void load_qwen2(const std::filesystem::path& path, Ocr2Model& model) {
  const std::string ours = "model.qwen2_model.model.model.";
  // Qwen2 has no hyper-connections: those of the encoder stay as they are.
  std::vector<std::string> names = {ours + "norm."};
  for (const Parameter& parameter : model.store().parameters())
    if (parameter.name.starts_with(ours + "layers.") &&
        parameter.name.find("_hc.") == std::string::npos)
      names.push_back(parameter.name);
  load_weights(model.store(), path, names, kStrict,
               [&](const std::string& name) { return replace_prefix(name, "model.", ours); });
}

void load_initial_weights(const ModelRecipe& recipe, Ocr2Model& model) {
  if (recipe.init != "random") load_from(recipe.init, {}, "", model);
  if (!recipe.init_encoder.empty())
    load_from(recipe.init_encoder, ocr2_parts::kEncoder, "model.qwen2_model.", model);
  if (!recipe.init_decoder.empty())
    load_from(recipe.init_decoder, kDecoderPrefixes, "model.layers.", model);
  if (!recipe.init_sam.empty()) load_sam(recipe.init_sam, model);
  if (!recipe.init_qwen2.empty()) load_qwen2(recipe.init_qwen2, model);
}

}  // namespace lectern
