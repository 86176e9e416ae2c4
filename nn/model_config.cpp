#include "nn/model_config.h"

#include "core/error.h"
#include "nn/language/decoder.h"
#include "nn/model.h"

#include <algorithm>
#include <iterator>
#include <map>

namespace lectern {

void ModelConfig::apply(const ModelSettings& settings) {
  if (settings.residual) residual = *settings.residual;
  if (settings.decoder_reads != "config")
    fail<ConfigError>(fmt::format("model.decoder_reads: {} has no such choice, got \"{}\"",
                                  family(), settings.decoder_reads));
  if (settings.queries > 0)
    fail<ConfigError>(
        fmt::format("model.queries: {} has no queries, got {}", family(), settings.queries));
}

std::int64_t ModelConfig::picture_tokens(std::int64_t global_size, std::int64_t tile_size,
                                         std::int64_t columns, std::int64_t rows) const {
  const std::int64_t tiles = columns * rows, separator = 1;
  return (tiles > 0 ? tiles * decoder_tokens(tile_size) : 0) + decoder_tokens(global_size) +
         separator;
}

std::int64_t ModelConfig::unit_of_parameter(const std::string& name) const {
  if (const auto unit = encoder_unit_of(name)) return *unit;
  if (const auto unit = Decoder::unit_of(decoder, name)) return first_decoder_unit() + *unit;
  fail<ConfigError>(fmt::format("{}: belongs to no unit of the model", name));
}

std::string ModelConfig::unit_name(std::int64_t unit) const {
  if (unit < first_decoder_unit()) return encoder_unit_name(unit);
  if (unit + 1 < unit_count()) return fmt::format("decoder block {}", unit - first_decoder_unit());
  return "head";
}

std::vector<bool> ModelConfig::trained_units(const std::vector<std::string>& frozen) const {
  const auto names = make(0, DType::f32, ParameterValues::absent);
  std::vector<bool> out(static_cast<std::size_t>(unit_count()), false);
  for (const Parameter& parameter : names->store().parameters()) {
    if (!matches_any(parameter.name, frozen))
      out[static_cast<std::size_t>(unit_of_parameter(parameter.name))] = true;
  }
  return out;
}

std::vector<bool> ModelConfig::units_of(const std::vector<std::string>& tensors) const {
  std::vector<bool> out(static_cast<std::size_t>(unit_count()), false);
  for (const std::string& tensor : tensors)
    out[static_cast<std::size_t>(unit_of_parameter(tensor))] = true;
  return out;
}

std::vector<double> ModelConfig::estimated_unit_costs(std::int64_t text_tokens) const {
  const auto names = make(0, DType::f32, ParameterValues::absent);
  const double experts = static_cast<double>(decoder.n_routed_experts);
  const double chosen = static_cast<double>(decoder.num_experts_per_tok);
  const double read = estimated_rows(first_decoder_unit());
  std::vector<double> out(static_cast<std::size_t>(unit_count()), 0);
  for (const Parameter& parameter : names->store().parameters()) {
    if (Decoder::is_embedding(parameter.name)) continue;  // rows are looked up
    const std::int64_t unit = unit_of_parameter(parameter.name);
    double work = static_cast<double>(parameter.variable.value().numel());
    if (is_routed_expert(parameter.name)) work *= chosen / experts;
    work *= unit < first_decoder_unit() ? estimated_rows(unit)
                                        : read + static_cast<double>(text_tokens);
    out[static_cast<std::size_t>(unit)] += work;
  }
  return out;
}

std::map<std::string, std::vector<std::string>> ModelConfig::named_parts() const {
  const ModelParts& all = parts();
  const std::string layers = std::string(kDecoderBlocks) + "*.";
  return {{"tokenizer", all.tokenizer},
          {"encoder", all.encoder},
          {"decoder", all.decoder},
          {"decoder.attention", {layers + "self_attn."}},
          {"decoder.mlp",
           {layers + "mlp.gate_up_proj", layers + "mlp.down_proj", layers + "mlp.shared_experts."}},
          {"head", all.head},
          {"router", {kRouters}},
          {"experts", {kExperts}}};
}

std::vector<std::string> ModelConfig::prefixes_of(const std::vector<std::string>& names) const {
  const auto known = named_parts();
  const auto model = make(0, DType::f32, ParameterValues::absent);
  const auto is_used = [&](const std::string& pattern) {
    const auto& parameters = model->store().parameters();
    return std::any_of(parameters.begin(), parameters.end(), [&](const Parameter& parameter) {
      return matches_any(parameter.name, {pattern});
    });
  };
  std::vector<std::string> out;
  for (const std::string& name : names) {
    const auto part = known.find(name);
    if (part == known.end()) {
      out.push_back(name);
      continue;
    }
    // A family's parts name what only some of its models have; a part that is nowhere is kept, to
    // be refused.
    const std::size_t before = out.size();
    std::copy_if(part->second.begin(), part->second.end(), std::back_inserter(out), is_used);
    if (out.size() == before) out.insert(out.end(), part->second.begin(), part->second.end());
  }
  return out;
}

}  // namespace lectern
