#include "nn/ocr2/units.h"

#include "core/error.h"

#include <charconv>
#include <optional>
#include <string_view>

namespace lectern {
namespace {

/// 7 of "model.layers.7.mlp..." after the prefix "model.layers.".
std::optional<std::int64_t> layer_after(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  std::int64_t layer = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  if (error != std::errc() || end == name.data() + name.size() || *end != '.') return std::nullopt;
  return layer;
}

}  // namespace

std::int64_t first_decoder_unit(const Ocr2Config& config) {
  return config.encoder.num_hidden_layers + 1;
}

std::int64_t unit_count(const Ocr2Config& config) {
  return first_decoder_unit(config) + config.text.num_hidden_layers + 1;
}

std::int64_t unit_of_parameter(const Ocr2Config& config, const std::string& name) {
  const std::int64_t decoder = first_decoder_unit(config), head = unit_count(config) - 1;
  if (name.starts_with("model.sam_model.")) return 0;
  if (const auto layer = layer_after(name, "model.qwen2_model.model.model.layers."))
    return 1 + *layer;
  if (name.starts_with("model.qwen2_model.query_")) return 1;
  if (name.starts_with("model.qwen2_model.") || name.starts_with("model.projector."))
    return decoder - 1;
  if (name.starts_with("model.view_seperator") || name.starts_with("model.embed_tokens."))
    return decoder;
  if (const auto layer = layer_after(name, "model.layers.")) return decoder + *layer;
  if (name.starts_with("model.norm.") || name.starts_with("model.hc_head.") ||
      name.starts_with("lm_head."))
    return head;
  fail<ConfigError>(fmt::format("{}: belongs to no unit of the model", name));
}

std::string unit_name(const Ocr2Config& config, std::int64_t unit) {
  const std::int64_t decoder = first_decoder_unit(config);
  if (unit == 0) return "vision tokenizer";
  if (unit < decoder) return fmt::format("encoder block {}", unit - 1);
  if (unit + 1 < unit_count(config)) return fmt::format("decoder block {}", unit - decoder);
  return "head";
}

}  // namespace lectern
