// Weights of the models that the encoder was made from.
#include "nn/ocr2/model.h"
#include "nn/weights.h"

namespace lectern {
namespace {

/// SAM and Qwen2 files hold more than we take (mask decoder, embeddings).
constexpr bool kStrict = false;

std::string replace_prefix(const std::string& name, const std::string& from,
                           const std::string& to) {
  return name.starts_with(from) ? to + name.substr(from.size()) : name;
}

/// SAM-base: the vision tokenizer's ViT and neck, from segment-anything's names
/// (`image_encoder.blocks...`) or transformers' (`vision_encoder.layers...`). The two compressing
/// convolutions are not part of SAM and stay as they are.
void load_sam(const std::filesystem::path& path, Ocr2Model& model) {
  const std::string ours = "model.sam_model.";
  load_weights(
      model.store(), path,
      [&](const std::string& name) {
        const std::string renamed =
            replace_prefix(replace_prefix(name, "image_encoder.", ours), "vision_encoder.",
                           "model.vision_tower.sam_encoder.");
        return model.config().published_name(renamed);
      },
      {ours + "patch_embed.", ours + "pos_embed", ours + "blocks.", ours + "neck."}, kStrict);
}

/// Qwen2-0.5B: the layers and norm of the LM encoder, from `model.layers...`. Embeddings and head
/// are left out; queries and hyper-connections are not part of Qwen2 and stay as they are.
void load_qwen2(const std::filesystem::path& path, Ocr2Model& model) {
  const std::string ours = "model.qwen2_model.model.model.";
  std::vector<std::string> names = {ours + "norm."};
  for (const Parameter& parameter : model.store().parameters())
    if (parameter.name.starts_with(ours + "layers.") &&
        parameter.name.find("_hc.") == std::string::npos)
      names.push_back(parameter.name);
  load_weights(
      model.store(), path,
      [&](const std::string& name) { return replace_prefix(name, "model.", ours); }, names,
      kStrict);
}

}  // namespace

void Ocr2Model::load_pretrained(std::string_view name, const std::filesystem::path& path) {
  if (name == "sam") return load_sam(path, *this);
  if (name == "qwen2") return load_qwen2(path, *this);
  OcrModel::load_pretrained(name, path);
}

}  // namespace lectern
