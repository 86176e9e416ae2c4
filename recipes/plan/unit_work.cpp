#include "recipes/plan/unit_work.h"

#include "core/ops/linear_cross_entropy.h"
#include "nn/model.h"
#include "nn/unit_work.h"

#include <algorithm>
#include <cmath>

namespace lectern {
namespace {

std::vector<ViewCount> views_of(const PageShape& page, double pages) {
  std::vector<ViewCount> out;
  if (!page.has_image) return out;
  const double sizes = static_cast<double>(page.global_sizes.size());
  for (const std::int64_t pixels : page.global_sizes) out.push_back({pixels, pages / sizes});
  if (page.crops > 0) out.push_back({page.tile_size, pages * to_double(page.crops)});
  return out;
}

void put(const UnitSizes& sizes, UnitWork& unit) {
  unit.stream_bytes = sizes.stream_bytes;
  unit.input_bytes = sizes.input_bytes;
  unit.kept_bytes = sizes.kept_bytes;
  unit.block_bytes = sizes.block_bytes;
  unit.output_bytes = sizes.output_bytes;
}

/// Memory and messages of a block of the decoder with `rows` rows.
void add_block_sizes(const DecoderConfig& text, const ResidualConfig& residual, bool sparse,
                     double rows, UnitWork& unit) {
  const double width = to_double(text.hidden_size), inner = to_double(text.moe_intermediate_size);
  unit.width = width;
  unit.stream_bytes = rows * stream_row_bytes(residual, width);
  unit.output_bytes = unit.input_bytes = kActivationBytes * rows * streams_of(residual) * width;
  const double shared =
      sparse ? to_double(text.n_shared_experts) * inner : to_double(text.intermediate_size);
  unit.kept_bytes = unit.input_bytes +
                    kActivationBytes * rows *
                        kept_numbers(width, to_double(text.head_dim * text.num_attention_heads),
                                     to_double(text.head_dim * text.num_key_value_heads), shared);
  if (sparse) {
    unit.routed_rows = rows * to_double(text.num_experts_per_tok);
    unit.shared = 2 * 3 * width * shared * rows;
    unit.kept_bytes += kActivationBytes * unit.routed_rows * (2 * width + 3 * inner);
  }
  unit.block_bytes = unit.kept_bytes;
}

/// Memory and messages of the units, which the parameters do not tell.
void add_sizes(const ModelConfig& config, const std::vector<ViewCount>& views, double tokens,
               std::vector<UnitWork>& units) {
  const auto decoder = static_cast<std::size_t>(config.first_decoder_unit());
  const ResidualConfig residual = config.residual.of_stack(config.residual.in_decoder);
  const DecoderConfig& text = config.decoder;
  for (std::size_t u = 0; u < decoder; ++u)
    put(config.encoder_sizes(static_cast<std::int64_t>(u), views), units[u]);
  for (std::size_t u = decoder; u + 1 < units.size(); ++u)
    add_block_sizes(text, residual, text.layer_is_sparse[u - decoder], tokens, units[u]);
  units.back().block_bytes =
      kActivationBytes *
      std::min(static_cast<double>(kLogitElements), to_double(kMaxLogitRows * text.vocab_size));
  units.back().input_bytes = units.back().kept_bytes =
      kActivationBytes * tokens * to_double(text.hidden_size) * (1 + streams_of(residual));
}

/// Operations of attention: scores and their sums with the values, 4 d for a pair of rows.
double attention_of(const ModelConfig& config, std::int64_t unit,
                    const std::vector<ViewCount>& views, double pages, double page_tokens) {
  if (unit < config.first_decoder_unit()) return config.encoder_sizes(unit, views).attention;
  if (unit + 1 == config.unit_count()) return 0;
  const double pairs = pages * page_tokens * (page_tokens + 1) / 2;
  return 4 * to_double(config.decoder.num_attention_heads * config.decoder.head_dim) * pairs;
}

}  // namespace

double PageShape::tokens(const ModelConfig& config) const {
  double out = to_double(text_tokens);
  if (!has_image) return out;
  // A plan knows how many tiles a page has, not how they lie: in one row.
  for (const std::int64_t pixels : global_sizes)
    out += to_double(config.picture_tokens(pixels, tile_size, crops, crops > 0 ? 1 : 0)) /
           static_cast<double>(global_sizes.size());
  return out;
}

std::vector<UnitWork> count_units(const ModelConfig& config, const PageShape& page, double pages,
                                  const std::vector<std::string>& frozen) {
  const auto names = config.make(0, DType::f32, ParameterValues::absent);
  const std::vector<ViewCount> views = views_of(page, pages);
  const std::vector<std::string> prefixes = config.prefixes_of(frozen);
  const double page_tokens = page.tokens(config), tokens = pages * page_tokens;
  const double trained_rows = pages * to_double(page.text_tokens);
  const auto rows_of = [&](std::int64_t u, const std::string& name) {
    if (u < config.first_decoder_unit()) return config.rows_of(u, name, views);
    if (Decoder::is_embedding(name)) return 0.0;
    return Decoder::is_head(name) ? trained_rows : tokens;
  };
  std::vector<UnitWork> units(static_cast<std::size_t>(config.unit_count()));
  for (std::size_t i = 0; i < units.size(); ++i)
    units[i].name = config.unit_name(static_cast<std::int64_t>(i));
  std::vector<double> weight_backward(units.size(), 0);
  for (const Parameter& parameter : names->store().parameters()) {
    const std::int64_t u = config.unit_of_parameter(parameter.name);
    UnitWork& unit = units[static_cast<std::size_t>(u)];
    const std::int64_t size = parameter.variable.value().numel();
    const bool expert = is_routed_expert(parameter.name);
    const bool trained = !matches_any(parameter.name, prefixes);
    unit.parameters += size;
    if (expert) unit.expert_parameters += size;
    if (trained) {
      unit.trained_parameters += size;
      if (expert) unit.trained_experts += size;
      unit.largest_parameter = std::max(unit.largest_parameter, size);
      unit.has_backward = true;
    }
    if (parameter.variable.value().ndim() < 2) continue;  // norms and biases are in no product
    double work = 2 * to_double(size) * rows_of(u, parameter.name);
    if (expert)
      work *= to_double(config.decoder.num_experts_per_tok) /
              to_double(config.decoder.n_routed_experts);
    unit.forward += work;
    if (trained) weight_backward[static_cast<std::size_t>(u)] += work;
  }
  bool before = false;
  for (std::size_t u = 0; u < units.size(); ++u) {
    const double attention =
        attention_of(config, static_cast<std::int64_t>(u), views, pages, page_tokens);
    before = units[u].has_backward = units[u].has_backward || before;
    // Gradients of the inputs take what the forward pass took, those of trained weights as much.
    if (before) units[u].backward = weight_backward[u] + units[u].forward + 2 * attention;
    units[u].forward += attention;
  }
  add_sizes(config, views, tokens, units);
  return units;
}

}  // namespace lectern
