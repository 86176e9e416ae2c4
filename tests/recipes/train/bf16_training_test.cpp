// Training in bf16 against training in fp32: the fixture's configuration and batch, each stage.
#include "autograd/compute_dtype.h"
#include "core/io/safetensors.h"
#include "nn/families.h"
#include "nn/model.h"
#include "nn/optim/optimizer.h"
#include "nn/weights.h"
#include "recipes/recipe/recipe.h"
#include "tests/nn/tiny_model.h"
#include "tests/testing.h"

#include <cmath>
#include <vector>

namespace lectern {
namespace {

const std::string kFolder = testing::first_family() + "_A";
constexpr double kRate = 1e-3;

ModelInput fixture_input() {
  const auto file = SafetensorsFile::open(testing::fixture(kFolder) / "case_crop2.safetensors");
  ModelInput out;
  out.input_ids = file.get("in.input_ids").to(DType::i32);
  out.labels = file.get("in.labels").to(DType::i32);
  out.pixel_values = file.get("in.pixel_values").to(DType::f32);
  out.pixel_values_local = file.get("in.pixel_values_local").to(DType::f32);
  const Tensor patches = file.get("in.num_local_patches").to(DType::i64);
  out.num_local_patches.assign(patches.data<std::int64_t>(),
                               patches.data<std::int64_t>() + patches.numel());
  return out;
}

struct Steps {
  std::vector<double> losses;
  std::vector<std::pair<std::string, Tensor>> gradients;  // of the first step
};

enum class Start { random, fixture };

/// `steps` updates of one stage.
Steps train_steps(std::int64_t stage, DType dtype, int steps, bool recompute = false,
                  Start start = Start::random) {
  const ComputeDType scope(dtype);
  const auto folder = testing::fixture(kFolder);
  const auto model_owner = testing::make_model(read_model_config(folder / "config.json"), 1);
  OcrModel& model = *model_owner;
  if (start == Start::fixture) load_weights(model, folder);
  model.store().freeze(model.config().prefixes_of(frozen_parts(stage)));
  const NamedParameters trainable = model.store().trainable();
  AdamW optimizer({.learning_rate = kRate});
  optimizer.add_group("all", trainable);
  const ModelInput input = fixture_input();
  Steps run;
  for (int step = 0; step < steps; ++step) {
    ForwardContext context;
    context.recompute_blocks = recompute;
    const ModelLoss loss = model.loss(input, context);
    const double count = static_cast<double>(loss.count);
    run.losses.push_back(loss.loss_sum.value().item() / count);
    loss.loss_sum.backward(Tensor::full(loss.loss_sum.shape(), 1.0 / count));
    if (step == 0)
      for (const auto& [name, parameter] : trainable)
        if (parameter.grad().defined())  // a query table may go unused
          run.gradients.emplace_back(name, parameter.grad().clone());
    optimizer.step(kRate, clip_scale(gradient_norm(trainable), 1.0));
    optimizer.clear_gradients();
  }
  return run;
}

/// |a - b| / |a| over all gradients together.
double distance(const Steps& a, const Steps& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.gradients.size(); ++i) {
    const Tensor &x = a.gradients[i].second, &y = b.gradients[i].second;
    for (std::int64_t j = 0; j < x.numel(); ++j) {
      const double p = x.data<float>()[j], q = y.data<float>()[j];
      difference += (p - q) * (p - q);
      norm += p * p;
    }
  }
  return std::sqrt(difference / norm);
}

class Bf16Training : public ::testing::TestWithParam<std::int64_t> {};

TEST_P(Bf16Training, LossStaysWithinOnePercentOfFp32) {
  const Steps single = train_steps(GetParam(), DType::f32, 50);
  const Steps half = train_steps(GetParam(), DType::bf16, 50);
  EXPECT_LT(single.losses.back(), 0.9 * single.losses.front()) << "it must learn something";
  bool differs = false;
  for (std::size_t step = 0; step < single.losses.size(); ++step) {
    EXPECT_NEAR(half.losses[step], single.losses[step], 0.01 * single.losses[step])
        << "step " << step;
    differs |= half.losses[step] != single.losses[step];
  }
  EXPECT_TRUE(differs) << "bf16 was not used";
}

// Each product rounds both operands by 2^-9 / sqrt(3) in the mean, and some tens of products lie
// between a weight and the loss.
TEST_P(Bf16Training, GradientsAreCloseToFp32) {
  const Steps single = train_steps(GetParam(), DType::f32, 1);
  const Steps half = train_steps(GetParam(), DType::bf16, 1);
  ASSERT_EQ(single.gradients.size(), half.gradients.size());
  EXPECT_LE(distance(single, half), 1e-2);
  for (const auto& [name, gradient] : half.gradients) EXPECT_EQ(gradient.dtype(), DType::f32);
}

// The fixture's weights are large and random, so that nothing in it is near neutral, and magnify
// any rounding. PyTorch's autocast is the yardstick: 4.64, 4.33 and 3.29 % in the three stages, and
// losses that leave fp32's by 10.1, 10.6 and 3.6 % within 50 steps (tests/oracle/bf16_drift.py,
// torch 2.15, transformers 5.23, 2026-11-22).
TEST_P(Bf16Training, FromTheFixturesWeightsItIsCloserThanAutocast) {
  const double autocast[] = {0.0464, 0.0433, 0.0329};
  const auto run = [](DType dtype) {
    return train_steps(GetParam(), dtype, 1, false, Start::fixture);
  };
  const double far = distance(run(DType::f32), run(DType::bf16));
  RecordProperty("gradient_distance", fmt::format("{:.4f}", far));
  EXPECT_LE(far, autocast[GetParam() - 1]);
}

INSTANTIATE_TEST_SUITE_P(Stages, Bf16Training, ::testing::Values(1, 2, 3));

TEST(Bf16Recompute, RecomputedBlocksGiveTheSameBits) {
  const Steps plain = train_steps(1, DType::bf16, 2), again = train_steps(1, DType::bf16, 2, true);
  EXPECT_EQ(plain.losses, again.losses);
  EXPECT_EQ(distance(plain, again), 0.0);
}

}  // namespace
}  // namespace lectern
