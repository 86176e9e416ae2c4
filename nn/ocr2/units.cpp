#include "nn/ocr2/units.h"

#include "core/error.h"
#include "nn/ocr2/model.h"

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

std::vector<bool> trained_units(const Ocr2Config& config, const std::vector<std::string>& frozen) {
  const Ocr2Model names(config, 0, DType::f32, ParameterValues::absent);
  std::vector<bool> out(static_cast<std::size_t>(unit_count(config)), false);
  for (const Parameter& parameter : names.store().parameters()) {
    bool trained = true;
    for (const std::string& prefix : frozen) trained &= !parameter.name.starts_with(prefix);
    if (trained) out[static_cast<std::size_t>(unit_of_parameter(config, parameter.name))] = true;
  }
  return out;
}

std::vector<double> estimated_unit_costs(const Ocr2Config& config, std::int64_t text_tokens) {
  const Ocr2Model names(config, 0, DType::f32, ParameterValues::absent);
  const double experts = static_cast<double>(config.text.n_routed_experts);
  const double chosen = static_cast<double>(config.text.num_experts_per_tok);
  const double patches = static_cast<double>(config.sam.grid() * config.sam.grid());
  const double queries = static_cast<double>(config.decoder_tokens(config.sam.image_size));
  const double tokens = static_cast<double>(config.image_tokens(config.sam.image_size));
  std::vector<double> out(static_cast<std::size_t>(unit_count(config)), 0);
  for (const Parameter& parameter : names.store().parameters()) {
    if (parameter.name.find("embed_tokens") != std::string::npos) continue;  // rows are looked up
    const std::int64_t unit = unit_of_parameter(config, parameter.name);
    double work = static_cast<double>(parameter.variable.value().numel());
    if (parameter.name.find(".mlp.experts.") != std::string::npos) work *= chosen / experts;
    work *= unit == 0                           ? patches
            : unit < first_decoder_unit(config) ? tokens + queries
                                                : queries + static_cast<double>(text_tokens);
    out[static_cast<std::size_t>(unit)] += work;
  }
  return out;
}

std::string unit_name(const Ocr2Config& config, std::int64_t unit) {
  const std::int64_t decoder = first_decoder_unit(config);
  if (unit == 0) return "vision tokenizer";
  if (unit < decoder) return fmt::format("encoder block {}", unit - 1);
  if (unit + 1 < unit_count(config)) return fmt::format("decoder block {}", unit - decoder);
  return "head";
}

}  // namespace lectern
