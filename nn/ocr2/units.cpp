#include "nn/ocr2/config.h"
#include "nn/parameter_names.h"

#include <fmt/core.h>

namespace lectern {

std::optional<std::int64_t> Ocr2Config::encoder_unit_of(const std::string& name) const {
  if (name.starts_with("model.sam_model.")) return 0;
  if (const auto layer = layer_after(name, "model.qwen2_model.model.model.layers."))
    return 1 + *layer;
  if (name.starts_with("model.qwen2_model.query_")) return 1;
  if (name.starts_with("model.qwen2_model.") || name.starts_with("model.projector."))
    return encoder_units() - 1;
  if (name.starts_with("model.view_seperator")) return encoder_units();  // the decoder's first
  return std::nullopt;
}

std::string Ocr2Config::encoder_unit_name(std::int64_t unit) const {
  return unit == 0 ? "vision tokenizer" : fmt::format("encoder block {}", unit - 1);
}

double Ocr2Config::estimated_rows(std::int64_t unit) const {
  if (unit == 0) return static_cast<double>(sam.grid() * sam.grid());
  if (unit >= encoder_units()) return static_cast<double>(decoder_tokens(sam.image_size));
  return static_cast<double>(visual_tokens(sam.image_size)) +
         static_cast<double>(query_count(sam.image_size));
}

}  // namespace lectern
