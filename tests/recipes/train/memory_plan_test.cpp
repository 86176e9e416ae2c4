// The choice of blocks that recompute: on a device whose bytes are counted by the test, and in real
// passes and runs.
#include "nn/memory_plan.h"

#include "recipes/log/metrics.h"
#include "recipes/train/trainer.h"
#include "tests/nn/tiny_model.h"
#include "tests/recipes/tiny_run.h"

#include <algorithm>
#include <sstream>

namespace lectern {
namespace {

using testing::throws_with;
using testing::TinyData;

struct CountedDevice {
  std::size_t current = 0, peak = 0, peak_of_all = 0;

  void take(std::size_t bytes) {
    current += bytes;
    peak = std::max(peak, current);
    peak_of_all = std::max(peak_of_all, current);
  }
  void give(std::size_t bytes) { current -= bytes; }
  MemoryProbe probe() {
    return {[this] { return MemoryStatistics{.current_bytes = current, .peak_bytes = peak}; },
            [this] { peak = current; }};
  }
};

struct BlockBytes {
  std::size_t output, held, extra, gradients;
};
constexpr std::size_t kBetween = 35;  // what comes and goes between two blocks

/// One pass over blocks; what lives for longer is `base`. Returns the true peak.
std::size_t pass(CountedDevice& device, MemoryPlan& plan, const std::vector<BlockBytes>& blocks,
                 std::size_t loss, bool may_probe) {
  device.peak_of_all = device.current;
  plan.begin({static_cast<std::int64_t>(loss)}, may_probe);
  std::vector<bool> recomputes;
  for (const BlockBytes& block : blocks) {
    const std::size_t number = plan.begin_block();
    recomputes.push_back(plan.recomputes(number));
    if (recomputes.back()) {  // intermediate values go as they come
      device.take(block.extra);
      device.give(block.extra);
      device.take(block.output);
      plan.end_block(number, block.output);
    } else {
      device.take(block.held + block.output + block.extra);
      device.give(block.extra);
    }
    device.take(kBetween);
    device.give(kBetween);
  }
  device.take(loss);
  device.give(loss);
  for (std::size_t i = blocks.size(); i-- > 0;) {
    const BlockBytes& block = blocks[i];
    if (recomputes[i]) {
      plan.begin_again(i);
      device.take(block.held + block.output + block.extra);
      device.give(block.extra);
      plan.end_again(i);
    }
    device.take(block.gradients);
    device.give(block.gradients + block.held + (recomputes[i] ? block.output : 0));
    device.give(block.output);
  }
  plan.end();
  return device.peak_of_all;
}

const std::vector<BlockBytes> kBlocks = {
    {10, 100, 20, 30}, {10, 100, 20, 30}, {25, 300, 40, 90}, {10, 50, 5, 200}, {10, 100, 20, 30}};

TEST(MemoryPlan, PredictsThePeakOfEveryBudget) {
  std::size_t most_kept = 0;
  for (const std::size_t loss : {0, 100, 500})
    for (std::size_t budget = 1000; budget <= 2400; budget += 50) {
      SCOPED_TRACE(fmt::format("loss {} budget {}", loss, budget));
      CountedDevice device;
      device.take(1000);
      MemoryPlan plan(static_cast<double>(budget), device.probe());
      const std::size_t least = pass(device, plan, kBlocks, loss, false);
      EXPECT_EQ(pass(device, plan, kBlocks, loss, true), least) << "a probe recomputes everything";
      const std::size_t peak = pass(device, plan, kBlocks, loss, false);
      EXPECT_EQ(plan.blocks(), kBlocks.size());
      EXPECT_EQ(static_cast<double>(peak), plan.predicted_peak());
      if (budget >= least) {
        EXPECT_LE(peak, budget);
        EXPECT_TRUE(plan.describe().ends_with("allowed")) << plan.describe();
      } else {
        EXPECT_EQ(plan.kept_blocks(), 0u);
        EXPECT_EQ(peak, least);
        EXPECT_TRUE(plan.describe().ends_with("more than that, even so")) << plan.describe();
      }
      most_kept = std::max(most_kept, plan.kept_blocks());
    }
  EXPECT_EQ(most_kept, kBlocks.size());
}

/// A pass that is larger than what was probed recomputes everything, and is probed when it may be.
TEST(MemoryPlan, LargerPassesAreProbedAnew) {
  CountedDevice device;
  MemoryPlan plan(1e9, device.probe());
  pass(device, plan, kBlocks, 100, true);
  EXPECT_EQ(plan.kept_blocks(), kBlocks.size());
  EXPECT_FALSE(plan.recomputes(0));
  std::vector<BlockBytes> larger = kBlocks;
  for (BlockBytes& block : larger) block.held *= 2;
  EXPECT_LT(pass(device, plan, larger, 200, false), 1000u) << "recomputes";
  EXPECT_LT(pass(device, plan, larger, 200, true), 1000u) << "the probe";
  const std::size_t peak = pass(device, plan, larger, 200, false);
  EXPECT_GT(peak, 1000u);
  EXPECT_EQ(static_cast<double>(peak), plan.predicted_peak());
  EXPECT_LE(static_cast<double>(pass(device, plan, kBlocks, 100, true)), plan.predicted_peak());
}

/// Blocks are numbered in the order in which a pass comes to them: without local views it comes to
/// others.
TEST(MemoryPlan, PassesThatLackAPartHaveAChoiceOfTheirOwn) {
  CountedDevice device;
  MemoryPlan plan(1e9, device.probe());
  pass(device, plan, kBlocks, 100, true);
  EXPECT_FALSE(plan.recomputes(0));
  plan.begin({0}, false);
  EXPECT_TRUE(plan.recomputes(0));
  EXPECT_EQ(plan.predicted_peak(), 0);
  plan.end();
  plan.begin({100}, false);
  EXPECT_FALSE(plan.recomputes(0));
}

testing::AnyConfig deeper_config() {
  nlohmann::json json = testing::tiny_model_config()->to_json();
  json["vision_config"]["encoder_config"]["num_hidden_layers"] = 3;
  json["vision_config"]["encoder_config"].erase("layer_types");
  testing::AnyConfig config = parse_model_config(json, "deeper");
  config->decoder.hidden_size = 64;
  config->decoder.intermediate_size = 160;
  config->decoder.num_hidden_layers = 6;
  config->decoder.layer_is_sparse = {false, true, true, true, true, true};
  return config;
}

/// Peak of one forward and backward pass, and its gradients.
double real_pass(const OcrModel& model, const ModelInput& input, MemoryPlan* plan, bool may_probe) {
  for (const Parameter& parameter : model.store().parameters()) {
    Variable variable = parameter.variable;
    variable.clear_grad();
  }
  reset_peak_memory();
  ForwardContext context;
  context.memory_plan = plan;
  if (plan != nullptr) plan->begin({input.input_ids.numel()}, may_probe);
  model.loss(input, context).loss_sum.backward();
  if (plan == nullptr) return static_cast<double>(memory_statistics().peak_bytes);
  plan->end();
  return plan->peak_of_pass();
}

TEST(MemoryPlan, WithinTenPercentInRealPasses) {
  const testing::AnyConfig config = deeper_config();
  const auto model_owner = testing::make_model(config, 1);
  const OcrModel& model = *model_owner;
  ModelInput input = testing::tiny_prompt(config, 4, 1, 40, 2);
  input.labels = input.input_ids.clone();
  const double most = real_pass(model, input, nullptr, false);
  std::vector<Tensor> want;
  for (const Parameter& parameter : model.store().parameters())
    want.push_back(parameter.variable.grad().clone());
  MemoryPlan none(0, {memory_statistics, reset_peak_memory});
  const double least = real_pass(model, input, &none, true);
  ASSERT_LT(least, 0.8 * most);
  std::size_t some = 0;
  for (const double share : {0.0, 0.3, 0.7, 1.1}) {
    SCOPED_TRACE(share);
    MemoryPlan plan(least + share * (most - least), {memory_statistics, reset_peak_memory});
    real_pass(model, input, &plan, true);
    const double peak = real_pass(model, input, &plan, false);
    EXPECT_NEAR(plan.predicted_peak(), peak, 0.1 * peak);
    EXPECT_LE(peak, 1.1 * plan.budget());
    if (plan.kept_blocks() > 0 && plan.kept_blocks() < plan.blocks()) ++some;
    for (std::size_t i = 0; i < want.size(); ++i)
      EXPECT_TRUE(testing::near(model.store().parameters()[i].variable.grad(), want[i], 0))
          << model.store().parameters()[i].name;
  }
  EXPECT_GE(some, 2u) << "budgets in between keep some blocks";
}

std::string deterministic_metrics(const Recipe& recipe) {
  std::string out;
  std::istringstream lines(read_file(recipe.run_dir / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) out += deterministic_view(line) + "\n";
  return out;
}

TEST(MemoryPlan, ARunIsTheSameUnderAnyBudget) {
  const TinyData data;
  for (const std::string micro_batch : {"4", "1"}) {
    const std::string batch = "batch.micro_batch=" + micro_batch;
    const Recipe free = data.recipe("free-" + micro_batch, {batch});
    train(free, false);
    for (const std::string gib : {"1e-6", "0.002", "8"}) {
      SCOPED_TRACE(gib + " GiB, micro-batches of " + micro_batch);
      const Recipe planned = data.recipe(fmt::format("planned-{}-{}", micro_batch, gib),
                                         {batch, "memory_gib=" + gib, "log.wall_clock=true"});
      train(planned, false);
      EXPECT_EQ(deterministic_metrics(planned), deterministic_metrics(free));
      const std::string text = read_file(planned.run_dir / "metrics.jsonl");
      EXPECT_NE(text.find("memory_predicted_bytes"), std::string::npos);
    }
  }
}

TEST(MemoryPlan, Errors) {
  const TinyData data;
  EXPECT_TRUE(throws_with(
      [&] {
        data.recipe("both", {"memory_gib=1", "recompute=true"});
      },
      {"memory_gib", "must be left out with recompute = true"}));
  EXPECT_TRUE(throws_with([&] { data.recipe("negative", {"memory_gib=-1"}); }, {"memory_gib"}));
  const Recipe staged = data.recipe("staged", {"memory_gib=1", "mesh.pp=2"});
  EXPECT_TRUE(throws_with([&] { check_mesh(staged, 2); },
                          {"memory_gib must be 0 with mesh.pp above 1", "got 1"}));
}

}  // namespace
}  // namespace lectern
