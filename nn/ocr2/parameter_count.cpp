#include "nn/ocr2/config.h"
#include "nn/unit_work.h"

namespace lectern {
namespace {

// In doubles: sizes from a hostile file do not overflow, and every count that parse_ocr2_config
// lets through is far below 2^53, so that it is exact.
double swiglu(double width, double rows) { return 3 * width * rows; }

double encoder_count(const Ocr2Config& config) {
  const EncoderConfig& encoder = config.encoder;
  const double width = to_double(encoder.hidden_size), head = to_double(encoder.head_dim());
  const double rows =
      (to_double(encoder.num_attention_heads) + 2 * to_double(encoder.num_key_value_heads)) * head;
  const double layer = rows * width + rows + width * width +
                       swiglu(width, to_double(encoder.intermediate_size)) + 2 * width;
  const ResidualConfig residual = config.residual.of_stack(config.residual.in_encoder);
  const double queries = config.decoder_reads == DecoderReads::queries
                             ? to_double(config.queries_768) + to_double(config.queries_1024)
                             : 0;
  return to_double(encoder.num_hidden_layers) * (layer + 2 * mapping_parameters(residual, width)) +
         head_parameters(residual, width) + width + queries * width;
}

}  // namespace

double Ocr2Config::parameter_count() const {
  const double width = to_double(decoder.hidden_size);
  const double projector = width * to_double(encoder.hidden_size) + width;
  return lectern::parameter_count(sam) + encoder_count(*this) + projector + width +
         lectern::parameter_count(decoder, residual.of_stack(residual.in_decoder));
}

}  // namespace lectern
