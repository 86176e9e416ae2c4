#include "nn/ocr2/config.h"

namespace lectern {
namespace {

// In doubles: sizes from a hostile file do not overflow, and every count that parse_ocr2_config
// lets through is far below 2^53, so that it is exact.
double real(std::int64_t size) { return static_cast<double>(size); }

double swiglu(double width, double rows) { return 3 * width * rows; }

double sam_count(const SamConfig& sam) {
  const double width = real(sam.hidden_size), mlp = real(sam.mlp_dim);
  const double patch = real(sam.num_channels * sam.patch_size * sam.patch_size);
  const double grid = real(sam.grid()), neck = real(sam.output_channels);
  double count = width * patch + width + grid * grid * width;
  for (std::int64_t i = 0; i < sam.num_hidden_layers; ++i) {
    const double side = real(sam.is_global(i) ? sam.grid() : sam.window_size);
    const double attention =
        4 * width * width + 4 * width + 2 * (2 * side - 1) * real(sam.head_dim());
    count += attention + 2 * mlp * width + mlp + width + 4 * width;
  }
  const double first = real(sam.downsample_channels[0]), second = real(sam.downsample_channels[1]);
  return count + neck * width + 9 * neck * neck + 4 * neck + 9 * first * neck + 9 * second * first;
}

double encoder_count(const Ocr2Config& config) {
  const EncoderConfig& encoder = config.encoder;
  const double width = real(encoder.hidden_size), head = real(encoder.head_dim());
  const double rows =
      (real(encoder.num_attention_heads) + 2 * real(encoder.num_key_value_heads)) * head;
  const double layer = rows * width + rows + width * width +
                       swiglu(width, real(encoder.intermediate_size)) + 2 * width;
  const ResidualConfig residual = config.residual.of_stack(config.residual.in_encoder);
  const double queries = config.decoder_reads == DecoderReads::queries
                             ? real(config.queries_768) + real(config.queries_1024)
                             : 0;
  return real(encoder.num_hidden_layers) * (layer + 2 * mapping_parameters(residual, width)) +
         head_parameters(residual, width) + width + queries * width;
}

double decoder_count(const TextConfig& text, const ResidualConfig& residual) {
  const double width = real(text.hidden_size), heads = real(text.num_attention_heads);
  const double rows = (heads + 2 * real(text.num_key_value_heads)) * real(text.head_dim);
  const double attention = rows * width + heads * real(text.head_dim) * width + 2 * width;
  const double experts = real(text.n_routed_experts), expert = real(text.moe_intermediate_size);
  const double sparse = experts * width + experts * swiglu(width, expert) +
                        swiglu(width, real(text.n_shared_experts) * expert);
  double count = 2 * real(text.vocab_size) * width + width +  // embedding, head, last norm
                 head_parameters(residual, width) +
                 2 * real(text.num_hidden_layers) * mapping_parameters(residual, width);
  for (const bool is_sparse : text.layer_is_sparse)
    count += attention + (is_sparse ? sparse : swiglu(width, real(text.intermediate_size)));
  return count;
}

}  // namespace

double parameter_count(const Ocr2Config& config) {
  const double width = real(config.text.hidden_size);
  const double projector = width * real(config.encoder.hidden_size) + width;
  return sam_count(config.sam) + encoder_count(config) + projector + width +
         decoder_count(config.text, config.residual.of_stack(config.residual.in_decoder));
}

}  // namespace lectern
