// What the encoder's units do, counted from shapes alone.
#include "nn/ocr2/config.h"
#include "nn/unit_work.h"

#include <cmath>

namespace lectern {
namespace {

class EncoderWork {
 public:
  EncoderWork(const Ocr2Config& config, std::span<const ViewCount> views)
      : config_(config), views_(views) {}

  double visual_tokens() const {
    return sum([&](const ViewCount& v) { return to_double(config_.visual_tokens(v.pixels)); });
  }
  double queries() const {
    return sum([&](const ViewCount& v) { return to_double(config_.query_count(v.pixels)); });
  }
  double encoder_rows() const { return visual_tokens() + queries(); }
  double decoder_rows() const {
    return sum([&](const ViewCount& v) { return to_double(config_.decoder_tokens(v.pixels)); });
  }
  double patches() const {
    return sum([&](const ViewCount& v) { return grid(v) * grid(v); });
  }

  double sam_rows(const std::string& name) const {
    const bool first = name.find(".net_2.") != std::string::npos;
    const bool second = name.find(".net_3.") != std::string::npos;
    if (first || second)  // convolutions of stride 2: rows of their outputs
      return sum([&](const ViewCount& v) {
        const double half = std::ceil(grid(v) / 2), side = first ? half : std::ceil(half / 2);
        return side * side;
      });
    if (name.find(".rel_pos_") != std::string::npos || name.find("pos_embed") != std::string::npos)
      return 0;  // the products with them are not of the whole table
    return patches();
  }

  /// Scores and their sums with the values: 4 d for a pair of rows.
  double sam_attention() const {
    double all = 0;
    for (std::int64_t layer = 0; layer < config_.sam.num_hidden_layers; ++layer)
      all += sum([&](const ViewCount& v) {
        const double side = to_double(config_.sam.window_size), windows = std::ceil(grid(v) / side);
        return config_.sam.is_global(layer) ? std::pow(grid(v), 4)
                                            : windows * windows * std::pow(side, 4);
      });
    return 4 * to_double(config_.sam.hidden_size) * all;
  }
  double encoder_attention() const {
    const EncoderConfig& encoder = config_.encoder;
    const double pairs = sum([&](const ViewCount& v) {
      const double m = to_double(config_.visual_tokens(v.pixels));
      const double n = to_double(config_.query_count(v.pixels));
      return m * m + n * m + n * (n + 1) / 2;
    });
    return 4 * to_double(encoder.num_attention_heads * encoder.head_dim()) * pairs;
  }

 private:
  double grid(const ViewCount& v) const { return to_double(v.pixels / config_.sam.patch_size); }

  template <typename F>
  double sum(F&& f) const {
    double out = 0;
    for (const ViewCount& v : views_) out += v.count * f(v);
    return out;
  }

  const Ocr2Config& config_;
  std::span<const ViewCount> views_;
};

UnitSizes tokenizer_sizes(const Ocr2Config& config, const EncoderWork& work) {
  const SamConfig& sam = config.sam;
  const double width = to_double(sam.hidden_size), layers = to_double(sam.num_hidden_layers);
  UnitSizes out;
  out.attention = work.sam_attention();
  out.input_bytes =
      kActivationBytes * work.patches() * to_double(sam.hidden_size * sam.num_hidden_layers);
  out.kept_bytes = layers * kActivationBytes * work.patches() *
                   (kept_numbers(width, width, width, 0) + 2 * to_double(sam.mlp_dim));
  out.block_bytes = out.kept_bytes / layers;
  out.output_bytes =
      kActivationBytes * work.visual_tokens() * to_double(config.encoder.hidden_size);
  return out;
}

}  // namespace

double Ocr2Config::rows_of(std::int64_t unit, const std::string& parameter,
                           std::span<const ViewCount> views) const {
  const EncoderWork work(*this, views);
  if (unit == 0) return work.sam_rows(parameter);
  if (parameter.find("query_") != std::string::npos) return 0;
  return parameter.starts_with("model.projector.") ? work.decoder_rows() : work.encoder_rows();
}

UnitSizes Ocr2Config::encoder_sizes(std::int64_t unit, std::span<const ViewCount> views) const {
  const EncoderWork work(*this, views);
  if (unit == 0) return tokenizer_sizes(*this, work);
  const ResidualConfig of_stack = residual.of_stack(residual.in_encoder);
  const double rows = work.encoder_rows(), width = to_double(encoder.hidden_size);
  const double streams = streams_of(of_stack), head_dim = to_double(encoder.head_dim());
  UnitSizes out;
  out.attention = work.encoder_attention();
  out.stream_bytes = rows * stream_row_bytes(of_stack, width);
  out.input_bytes = kActivationBytes * rows * streams * width;
  out.kept_bytes =
      out.input_bytes + kActivationBytes * rows *
                            kept_numbers(width, head_dim * to_double(encoder.num_attention_heads),
                                         head_dim * to_double(encoder.num_key_value_heads),
                                         to_double(encoder.intermediate_size));
  out.block_bytes = out.kept_bytes;
  out.output_bytes = unit + 1 < encoder_units()
                         ? kActivationBytes * rows * streams * width
                         : kActivationBytes * work.queries() * to_double(decoder.hidden_size);
  return out;
}

}  // namespace lectern
