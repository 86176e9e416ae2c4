#include "recipes/train/diagnostics.h"

#include "recipes/train/step_report.h"
#include "tests/testing.h"

#include <cmath>

namespace lectern {
namespace {

TEST(Diagnostics, FieldsByStack) {
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

TEST(Diagnostics, AreDueFirstLastAndEveryFewSteps) {
  Recipe recipe;
  recipe.steps = 7;
  EXPECT_FALSE(diagnostics_due(recipe, 1));
  recipe.log.diagnostics_every = 3;
  std::vector<std::int64_t> due;
  for (std::int64_t step = 1; step <= recipe.steps; ++step)
    if (diagnostics_due(recipe, step)) due.push_back(step);
  EXPECT_EQ(due, (std::vector<std::int64_t>{1, 3, 6, 7}));
}

TEST(Diagnostics, GradientNormOfEachLayer) {
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
