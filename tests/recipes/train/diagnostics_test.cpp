#include "recipes/train/diagnostics.h"

#include "tests/testing.h"

#include <cmath>

namespace lectern {
namespace {

TEST(Diagnostics, fields_by_stack) {
  StreamStatistics decoder, encoder;
  decoder.tokens = encoder.tokens = 1;
  decoder.gain_forward = 1.5;
  decoder.deviation = 0.25;
  encoder.gain_backward_min = 0.5;
  MetricFields fields = MetricFields::object();
  add_stream_fields({{"decoder", decoder}, {"encoder", encoder}, {"other", {}}}, fields);
  EXPECT_EQ(fields.size(), 12u);
  EXPECT_EQ(fields["gain_forward"], 1.5);
  EXPECT_EQ(fields["stream_deviation"], 0.25);
  EXPECT_EQ(fields["encoder_gain_backward_min"], 0.5);
}

TEST(Diagnostics, gradient_norm_of_each_layer) {
  const auto norms = layer_gradient_norms(
      std::map<std::string, double>{{"model.layers.10.a", 9},
                                    {"model.layers.2.a", 9},
                                    {"model.layers.2.b", 16},
                                    {"model.norm.weight", 81},
                                    {"model.qwen2_model.model.model.layers.0.a", 4}});
  ASSERT_EQ(norms.size(), 3u);
  EXPECT_EQ(norms[0].first, "encoder_00");
  EXPECT_EQ(norms[1].first, "decoder_02");
  EXPECT_EQ(norms[2].first, "decoder_10");
  EXPECT_DOUBLE_EQ(norms[0].second, 2);
  EXPECT_DOUBLE_EQ(norms[1].second, 5);
  EXPECT_DOUBLE_EQ(norms[2].second, 3);
}

}  // namespace
}  // namespace lectern
