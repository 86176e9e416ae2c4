#include "nn/ocr2/config.h"

namespace lectern {
namespace {

// In doubles: sizes from a hostile file do not overflow, and every count that parse_ocr2_config
// lets through is far below 2^53, so that it is exact.
double real(std::int64_t size) { return static_cast<double>(size); }

double swiglu(double width, double rows) { return 3 * width * rows; }

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

}  // namespace

double Ocr2Config::parameter_count() const {
  const double width = real(decoder.hidden_size);
  const double projector = width * real(encoder.hidden_size) + width;
  return lectern::parameter_count(sam) + encoder_count(*this) + projector + width +
         lectern::parameter_count(decoder, residual.of_stack(residual.in_decoder));
}

}  // namespace lectern
