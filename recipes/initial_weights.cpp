#include "recipes/initial_weights.h"

#include "nn/ocr2/weights.h"
#include "recipes/model_folder.h"

#include <string>

namespace lectern {
namespace {

const std::vector<std::string> kDecoderPrefixes = {"model.embed_tokens.", "model.layers.",
                                                   "model.norm.", "lm_head."};

/// SAM and Qwen2 files hold more than we take (mask decoder, embeddings).
constexpr bool kStrict = false;

std::string replace_prefix(const std::string& name, const std::string& from,
                           const std::string& to) {
  return name.starts_with(from) ? to + name.substr(from.size()) : name;
}

}  // namespace

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
  load_weights(model.store(), path, {ours + "layers.", ours + "norm."}, kStrict,
               [&](const std::string& name) { return replace_prefix(name, "model.", ours); });
}

void load_initial_weights(const ModelRecipe& recipe, Ocr2Model& model) {
  ParameterStore& store = model.store();
  if (recipe.init != "random") {
    const auto folder = resolve_model_folder(recipe.init);
    load_weights(store, folder);
    const ResidualConfig& ours = model.config().residual;
    if (ours.kind == ResidualKind::mhc && !ours.exact)
      convert_convention(store, read_ocr2_config(folder / "config.json").residual.convention,
                         ours.convention);
  }
  if (!recipe.init_encoder.empty())
    load_weights(store, resolve_model_folder(recipe.init_encoder), ocr2_parts::kEncoder);
  if (!recipe.init_decoder.empty())
    load_weights(store, resolve_model_folder(recipe.init_decoder), kDecoderPrefixes);
  if (!recipe.init_sam.empty()) load_sam(recipe.init_sam, model);
  if (!recipe.init_qwen2.empty()) load_qwen2(recipe.init_qwen2, model);
}

}  // namespace lectern
