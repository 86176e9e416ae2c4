#include "recipes/plan/unit_work.h"

#include "core/ops/linear_cross_entropy.h"
#include "nn/ocr2/model.h"
#include "nn/ocr2/units.h"

#include <algorithm>
#include <cmath>

namespace lectern {
namespace {

constexpr double kFloat = 4;  // bytes: activations are f32 in every dtype of compute

double real(std::int64_t n) { return static_cast<double>(n); }

/// Views of one size in a micro-batch.
struct Views {
  std::int64_t pixels = 0;
  double count = 0;
};

std::vector<Views> views_of(const PageShape& page, double pages) {
  std::vector<Views> out;
  if (!page.has_image) return out;
  const double sizes = static_cast<double>(page.global_sizes.size());
  for (const std::int64_t pixels : page.global_sizes) out.push_back({pixels, pages / sizes});
  if (page.crops > 0) out.push_back({page.tile_size, pages * real(page.crops)});
  return out;
}

/// Bytes that a forward pass of a residual moves for a row, in both of a block's sub-layers: reads
/// of (3n + 1) C and writes of (n + 1) C (arXiv 2512.24880, table 2, fused).
double stream_row_bytes(const ResidualConfig& residual, double width) {
  if (residual.is_plain()) return 0;
  const double n = real(residual.streams);
  return 2 * (4 * n + 2) * width * kFloat;
}

double streams_of(const ResidualConfig& residual) {
  return residual.is_plain() ? 1 : real(residual.streams);
}

class Counter {
 public:
  Counter(const Ocr2Config& config, const PageShape& page, double pages)
      : config_(config),
        views_(views_of(page, pages)),
        page_tokens_(page.tokens(config)),
        pages_(pages),
        trained_rows_(pages * real(page.text_tokens)) {}

  /// Rows that a parameter of unit `u` is multiplied with.
  double rows(std::int64_t u, const std::string& name) const {
    if (u == 0) return sam_rows(name);
    if (u < first_decoder_unit(config_))
      return name.starts_with("model.projector.") ? decoder_rows() : encoder_rows();
    return name.starts_with("lm_head.") ? trained_rows_ : tokens();
  }

  double tokens() const { return pages_ * page_tokens_; }
  double encoder_rows() const { return image_tokens() + queries(); }
  double image_tokens() const {
    return sum([&](const Views& v) { return real(config_.image_tokens(v.pixels)); });
  }
  double queries() const {
    return sum([&](const Views& v) { return query_count(v); });
  }
  double decoder_rows() const {
    return sum([&](const Views& v) { return real(config_.decoder_tokens(v.pixels)); });
  }
  double patches() const {
    return sum([&](const Views& v) { return grid(v) * grid(v); });
  }

  /// Scores and their sums with the values: 4 d for a pair of rows.
  double attention(std::int64_t u) const {
    if (u == 0) {
      double all = 0;
      for (std::int64_t layer = 0; layer < config_.sam.num_hidden_layers; ++layer)
        all += sum([&](const Views& v) {
          const double side = real(config_.sam.window_size), windows = std::ceil(grid(v) / side);
          return config_.sam.is_global(layer) ? std::pow(grid(v), 4)
                                              : windows * windows * std::pow(side, 4);
        });
      return 4 * real(config_.sam.hidden_size) * all;
    }
    if (u < first_decoder_unit(config_)) {
      const EncoderConfig& encoder = config_.encoder;
      const double pairs = sum([&](const Views& v) {
        const double m = real(config_.image_tokens(v.pixels));
        const double n = query_count(v);
        return m * m + n * m + n * (n + 1) / 2;
      });
      return 4 * real(encoder.num_attention_heads * encoder.head_dim()) * pairs;
    }
    if (u + 1 == unit_count(config_)) return 0;
    const double pairs = pages_ * page_tokens_ * (page_tokens_ + 1) / 2;
    return 4 * real(config_.text.num_attention_heads * config_.text.head_dim) * pairs;
  }

 private:
  double query_count(const Views& v) const {
    return config_.decoder_reads == DecoderReads::queries ? real(config_.decoder_tokens(v.pixels))
                                                          : 0;
  }
  double grid(const Views& v) const { return real(v.pixels / config_.sam.patch_size); }

  template <typename F>
  double sum(F&& f) const {
    double out = 0;
    for (const Views& v : views_) out += v.count * f(v);
    return out;
  }

  double sam_rows(const std::string& name) const {
    const bool first = name.find(".net_2.") != std::string::npos;
    const bool second = name.find(".net_3.") != std::string::npos;
    if (first || second)  // convolutions of stride 2: rows of their outputs
      return sum([&](const Views& v) {
        const double half = std::ceil(grid(v) / 2), side = first ? half : std::ceil(half / 2);
        return side * side;
      });
    if (name.find(".rel_pos_") != std::string::npos || name.find("pos_embed") != std::string::npos)
      return 0;  // the products with them are not of the whole table
    return patches();
  }

  const Ocr2Config& config_;
  std::vector<Views> views_;
  double page_tokens_, pages_, trained_rows_;
};

/// Numbers that backward of a transformer block needs for a row, without recomputation: the outputs
/// of its operations.
double kept_numbers(double width, double queries, double keys, double hidden) {
  return 4 * width + 2 * (queries + 2 * keys) + queries + 3 * hidden;
}

/// Memory and messages of the units, which the parameters do not tell.
void add_sizes(const Ocr2Config& config, const Counter& count, std::vector<UnitWork>& units) {
  const std::int64_t decoder = first_decoder_unit(config);
  const auto head = static_cast<std::int64_t>(units.size()) - 1;
  const ResidualConfig in_encoder = config.residual.of_stack(config.residual.in_encoder);
  const ResidualConfig in_decoder = config.residual.of_stack(config.residual.in_decoder);
  const SamConfig& sam = config.sam;
  const EncoderConfig& encoder = config.encoder;
  const TextConfig& text = config.text;
  units[0].input_bytes = kFloat * count.patches() * real(sam.hidden_size * sam.num_hidden_layers);
  units[0].kept_bytes =
      real(sam.num_hidden_layers) * kFloat * count.patches() *
      (kept_numbers(real(sam.hidden_size), real(sam.hidden_size), real(sam.hidden_size), 0) +
       2 * real(sam.mlp_dim));
  units[0].block_bytes = units[0].kept_bytes / real(sam.num_hidden_layers);
  units[0].output_bytes = kFloat * count.image_tokens() * real(encoder.hidden_size);
  for (std::int64_t u = 1; u < decoder; ++u) {
    UnitWork& unit = units[static_cast<std::size_t>(u)];
    const double rows = count.encoder_rows(), width = real(encoder.hidden_size);
    const double streams = streams_of(in_encoder), head_dim = real(encoder.head_dim());
    unit.stream_bytes = rows * stream_row_bytes(in_encoder, width);
    unit.input_bytes = kFloat * rows * streams * width;
    unit.kept_bytes =
        unit.input_bytes + kFloat * rows *
                               kept_numbers(width, head_dim * real(encoder.num_attention_heads),
                                            head_dim * real(encoder.num_key_value_heads),
                                            real(encoder.intermediate_size));
    unit.output_bytes = u + 1 < decoder ? kFloat * rows * streams * width
                                        : kFloat * count.queries() * real(text.hidden_size);
  }
  for (std::int64_t u = decoder; u < head; ++u) {
    UnitWork& unit = units[static_cast<std::size_t>(u)];
    const double rows = count.tokens(), width = real(text.hidden_size);
    const double inner = real(text.moe_intermediate_size);
    const bool sparse = text.layer_is_sparse[static_cast<std::size_t>(u - decoder)];
    unit.width = width;
    unit.stream_bytes = rows * stream_row_bytes(in_decoder, width);
    unit.output_bytes = unit.input_bytes = kFloat * rows * streams_of(in_decoder) * width;
    const double shared =
        sparse ? real(text.n_shared_experts) * inner : real(text.intermediate_size);
    unit.kept_bytes =
        unit.input_bytes + kFloat * rows *
                               kept_numbers(width, real(text.head_dim * text.num_attention_heads),
                                            real(text.head_dim * text.num_key_value_heads), shared);
    if (!sparse) continue;
    unit.routed_rows = rows * real(text.num_experts_per_tok);
    unit.shared = 2 * 3 * width * shared * rows;
    unit.kept_bytes += kFloat * unit.routed_rows * (2 * width + 3 * inner);
  }
  for (std::int64_t u = 1; u < head; ++u)
    units[static_cast<std::size_t>(u)].block_bytes = units[static_cast<std::size_t>(u)].kept_bytes;
  units.back().block_bytes =
      kFloat * std::min(static_cast<double>(kLogitElements), real(kMaxLogitRows * text.vocab_size));
  units.back().input_bytes = units.back().kept_bytes =
      kFloat * count.tokens() * real(text.hidden_size) * (1 + streams_of(in_decoder));
}

}  // namespace

double PageShape::tokens(const Ocr2Config& config) const {
  double out = real(text_tokens);
  if (!has_image) return out;
  for (const std::int64_t pixels : global_sizes)
    out += real(config.decoder_tokens(pixels) + 1) / static_cast<double>(global_sizes.size());
  return out + real(crops * (crops > 0 ? config.decoder_tokens(tile_size) : 0));
}

std::vector<UnitWork> count_units(const Ocr2Config& config, const PageShape& page, double pages,
                                  const std::vector<std::string>& frozen) {
  const Ocr2Model names(config, 0, DType::f32, ParameterValues::absent);
  const Counter count(config, page, pages);
  std::vector<UnitWork> units(static_cast<std::size_t>(unit_count(config)));
  for (std::size_t i = 0; i < units.size(); ++i)
    units[i].name = unit_name(config, static_cast<std::int64_t>(i));
  std::vector<double> weight_backward(units.size(), 0);
  for (const Parameter& parameter : names.store().parameters()) {
    const auto u = static_cast<std::size_t>(unit_of_parameter(config, parameter.name));
    UnitWork& unit = units[u];
    const std::int64_t size = parameter.variable.value().numel();
    const bool expert = parameter.name.find(".mlp.experts.") != std::string::npos;
    bool trained = true;
    for (const std::string& prefix : frozen) trained &= !parameter.name.starts_with(prefix);
    unit.parameters += size;
    if (expert) unit.expert_parameters += size;
    if (trained) {
      unit.trained_parameters += size;
      if (expert) unit.trained_experts += size;
      unit.largest_parameter = std::max(unit.largest_parameter, size);
      unit.has_backward = true;
    }
    // Vectors (norms, biases) and tables that rows are looked up in are in no product.
    const bool multiplies = parameter.variable.value().ndim() >= 2 &&
                            parameter.name.find("embed") == std::string::npos &&
                            parameter.name.find("query_") == std::string::npos;
    const bool patch = parameter.name.find("patch_embed") != std::string::npos &&
                       parameter.variable.value().ndim() >= 2;
    if (!multiplies && !patch) continue;
    double work = 2 * real(size) * count.rows(static_cast<std::int64_t>(u), parameter.name);
    if (expert) work *= real(config.text.num_experts_per_tok) / real(config.text.n_routed_experts);
    unit.forward += work;
    if (trained) weight_backward[u] += work;
  }
  bool before = false;
  for (std::size_t u = 0; u < units.size(); ++u) {
    const double attention = count.attention(static_cast<std::int64_t>(u));
    before = units[u].has_backward = units[u].has_backward || before;
    // Gradients of the inputs take what the forward pass took, those of trained weights as much.
    if (before) units[u].backward = weight_backward[u] + units[u].forward + 2 * attention;
    units[u].forward += attention;
  }
  add_sizes(config, count, units);
  return units;
}

}  // namespace lectern
