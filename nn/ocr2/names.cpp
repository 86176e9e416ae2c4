// What the tensors of the model are called by transformers' modules, and the parts of the model.
#include "nn/language/decoder.h"
#include "nn/ocr2/config.h"

#include <string_view>

namespace lectern {
namespace {

struct Rename {
  const char* module;
  const char* published;
};

/// Prefixes first to last; the first that fits wins (docs/ocr2.md section 4).
constexpr Rename kPrefixes[] = {
    {"model.vision_tower.sam_encoder.patch_embed.projection.", "model.sam_model.patch_embed.proj."},
    {"model.vision_tower.sam_encoder.layers.", "model.sam_model.blocks."},
    {"model.vision_tower.sam_encoder.neck.conv1.", "model.sam_model.neck.0."},
    {"model.vision_tower.sam_encoder.neck.layer_norm1.", "model.sam_model.neck.1."},
    {"model.vision_tower.sam_encoder.neck.conv2.", "model.sam_model.neck.2."},
    {"model.vision_tower.sam_encoder.neck.layer_norm2.", "model.sam_model.neck.3."},
    {"model.vision_tower.sam_encoder.proj.conv1.", "model.sam_model.net_2."},
    {"model.vision_tower.sam_encoder.proj.conv2.", "model.sam_model.net_3."},
    {"model.vision_tower.sam_encoder.", "model.sam_model."},
    {"model.vision_tower.vision_encoder.", "model.qwen2_model.model.model."},
    {"model.vision_tower.query_768_resolution.", "model.qwen2_model.query_768."},
    {"model.vision_tower.query_1024_resolution.", "model.qwen2_model.query_1024."},
    {"model.multi_modal_projector.", "model.projector.layers."},
    {"model.view_separator", "model.view_seperator"},
    {"model.language_model.", "model."},
};

constexpr Rename kSamNorms[] = {{".layer_norm1.", ".norm1."}, {".layer_norm2.", ".norm2."}};

}  // namespace

std::string Ocr2Config::published_name(const std::string& name) const {
  for (const auto& [module, published] : kPrefixes) {
    if (!name.starts_with(module)) continue;
    std::string out = published + name.substr(std::string_view(module).size());
    if (out.starts_with("model.sam_model.blocks."))
      for (const auto& [from, to] : kSamNorms)
        if (const auto at = out.find(from); at != std::string::npos)
          out.replace(at, std::string_view(from).size(), to);
    return out;
  }
  return name;
}

std::string Ocr2Config::module_name(const std::string& published) const {
  for (const auto& [module, prefix] : kPrefixes) {
    if (!published.starts_with(prefix)) continue;
    std::string out = module + published.substr(std::string_view(prefix).size());
    if (published.starts_with("model.sam_model.blocks."))
      for (const auto& [to, from] : kSamNorms)
        if (const auto at = out.find(from); at != std::string::npos)
          out.replace(at, std::string_view(from).size(), to);
    return out;
  }
  return published;
}

std::map<std::string, std::vector<std::string>> Ocr2Config::named_parts() const {
  auto out = ModelConfig::named_parts();
  out["lm_encoder"] = {"model.qwen2_model."};
  out["projector"] = {"model.projector."};
  return out;
}

const ModelParts& Ocr2Config::parts() const {
  static const ModelParts parts = {.tokenizer = {"model.sam_model."},
                                   .encoder = {"model.sam_model.", "model.qwen2_model.",
                                               "model.projector.", "model.view_seperator"},
                                   .decoder = decoder_prefixes(),
                                   .head = {"lm_head."}};
  return parts;
}

}  // namespace lectern
