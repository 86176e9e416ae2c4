// The whole model in fp64 against finite differences: loss of a tiny OCR 2 with tiles, windows, MoE
// and both query tables, along random directions of every parameter.
#include "autograd/gradient_check.h"
#include "core/random.h"
#include "nn/ocr2/model.h"
#include "tests/nn/ocr2/tiny_ocr2.h"
#include "tests/testing.h"

#include <cmath>

namespace lectern {
namespace {

/// One page with two tiles, of which the text is trained.
ModelInput tiny_input(const Ocr2Config& config) {
  constexpr std::int64_t kTiles = 2, kText = 6;
  ModelInput input = testing::tiny_prompt(config, 1, kTiles, kText, 5);
  input.labels = Tensor::full(input.input_ids.shape(), -100, DType::i32);
  const std::int64_t length = input.input_ids.dim(1);
  for (std::int64_t i = length - kText; i < length; ++i)
    input.labels.data<std::int32_t>()[i] = input.input_ids.data<std::int32_t>()[i];
  return input;
}

double loss_of(const Ocr2Model& model, const ModelInput& input) {
  const NoGrad off;
  ForwardContext context;
  return model.loss(input, context).loss_sum.value().item();
}

void check_all_parameters(bool recompute_blocks, DecoderReads reads = DecoderReads::queries) {
  Ocr2Config config = testing::tiny_ocr2_config();
  config.decoder_reads = reads;
  Ocr2Model model(config, 3, DType::f64);
  for (const Parameter& parameter : model.store().parameters())  // away from zeros and ones
    Random(9, parameter.name).fill_normal(parameter.variable.value(), 0.1, 0.3);
  const ModelInput input = tiny_input(config);
  ForwardContext context;
  context.recompute_blocks = recompute_blocks;
  model.loss(input, context).loss_sum.backward();

  for (const Parameter& parameter : model.store().parameters()) {
    const Tensor& value = parameter.variable.value();
    ASSERT_TRUE(parameter.variable.grad().defined()) << parameter.name;
    const Tensor saved = value.clone();
    Tensor direction = Tensor::empty(value.shape(), DType::f64);
    Random(11, parameter.name).fill_normal(direction, 0, 1);
    const double step = 1e-6;
    const auto loss_at = [&](double by) {
      for (std::int64_t i = 0; i < value.numel(); ++i)
        value.data<double>()[i] = saved.data<double>()[i] + by * direction.data<double>()[i];
      value.mark_modified();
      return loss_of(model, input);
    };
    const double numeric = (loss_at(step) - loss_at(-step)) / (2 * step);
    loss_at(0);
    const Tensor grad = parameter.variable.grad().contiguous();
    double analytic = 0;
    for (std::int64_t i = 0; i < value.numel(); ++i)
      analytic += grad.data<double>()[i] * direction.data<double>()[i];
    // Central differences of a loss near 10 with step 1e-6 carry about 1e-9 / 1e-6 of noise.
    EXPECT_NEAR(numeric, analytic, 2e-5 * std::max(1.0, std::abs(analytic))) << parameter.name;
  }
}

TEST(ModelGradient, EveryParameterAgainstFiniteDifferences) { check_all_parameters(false); }
TEST(ModelGradient, WithRecomputationOfBlocks) { check_all_parameters(true); }
TEST(ModelGradient, WhereTheDecoderReadsVisualTokens) {
  check_all_parameters(false, DecoderReads::visual);
}

/// Visual tokens see each other and no query, so leaving the queries out must not change them.
TEST(LmEncoder, VisualTokensAreTheRowsInFrontOfTheQueries) {
  Ocr2Config config = testing::tiny_ocr2_config();
  for (const std::int64_t tokens : {1, 4, 9}) {
    ParameterStore with_queries(7, DType::f64), without(7, DType::f64);
    const LmEncoder encoder(with_queries, config);
    Ocr2Config visual = config;
    visual.decoder_reads = DecoderReads::visual;
    const LmEncoder raster(without, visual);
    EXPECT_EQ(with_queries.parameters().size(), without.parameters().size() + 2);
    Tensor image = Tensor::empty({2, tokens, config.encoder.hidden_size}, DType::f64);
    Random(5, "image").fill_normal(image, 0, 1);
    ForwardContext context;
    Streams all = encoder.enter(Variable(image), context);
    for (std::int64_t i = 0; i < encoder.blocks(); ++i)
      all = encoder.block(i, all, tokens, context, "");
    const Tensor expected =
        encoder.leave(all, 0, context, "").value().slice(1, 0, tokens).contiguous();
    const Tensor found = raster.forward(Variable(image), context, "").value().contiguous();
    ASSERT_EQ(found.shape(), expected.shape());
    for (std::int64_t i = 0; i < found.numel(); ++i)
      EXPECT_NEAR(found.data<double>()[i], expected.data<double>()[i], 1e-12);
  }
}

TEST(Model, FrozenPartsBuildNoGraphAndGetNoGradient) {
  const Ocr2Config config = testing::tiny_ocr2_config();
  Ocr2Model model(config, 3);
  model.store().freeze(model.config().parts().encoder);
  const ModelInput input = tiny_input(config);
  ForwardContext context;
  EXPECT_FALSE(model.encode(input, context).global.requires_grad());
  model.loss(input, context).loss_sum.backward();
  for (const Parameter& parameter : model.store().parameters()) {
    const bool decoder = !parameter.name.starts_with("model.sam_model.") &&
                         !parameter.name.starts_with("model.qwen2_model.") &&
                         !parameter.name.starts_with("model.projector.") &&
                         !parameter.name.starts_with("model.view_seperator");
    EXPECT_EQ(parameter.variable.grad().defined(), decoder) << parameter.name;
  }
}

TEST(Model, CountOfImageTokensMustMatch) {
  const Ocr2Config config = testing::tiny_ocr2_config();
  Ocr2Model model(config, 3);
  ModelInput input = tiny_input(config);
  input.input_ids.data<std::int32_t>()[1] = 4;
  ForwardContext context;
  EXPECT_TRUE(testing::throws_with([&] { model.loss(input, context); },
                                   {"input_ids", "14 image rows", "got 13"}));
}

}  // namespace
}  // namespace lectern
