// The whole path on the emulated device: recipes that train, resume and read with device = "cuda"
// against the same on the CPU. Products and convolutions come from the library's stand-in,
// everything else from our kernels.
#include "core/device_backend.h"
#include "core/io/file.h"
#include "nn/generation/generation.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/train/trainer.h"
#include "tests/cuda/check_cuda.h"
#include "tests/nn/tiny_model.h"
#include "tests/recipes/tiny_run.h"

#include <map>
#include <sstream>

namespace lectern {
namespace {

using testing::gpu;
using testing::TinyData;

/// A field of every line of metrics.jsonl.
std::vector<double> metric(const Recipe& recipe, const std::string& field) {
  std::vector<double> out;
  std::istringstream lines(read_file(recipe.run_dir / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json.contains(field)) out.push_back(json[field].get<double>());
  }
  return out;
}

void expect_close(const std::vector<double>& got, const std::vector<double>& want, double bound) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    EXPECT_NEAR(got[i], want[i], bound * std::abs(want[i])) << "step " << i + 1;
}

TEST(CudaTraining, EveryStageFollowsTheCpu) {
  const TinyData data;
  for (const int stage : {1, 2, 3}) {
    SCOPED_TRACE(stage);
    const std::string key = fmt::format("stage={}", stage);
    const Recipe here = data.recipe(fmt::format("cpu{}", stage), {key});
    const Recipe there = data.recipe(fmt::format("cuda{}", stage), {key, "device=cuda"});
    train(here, false);
    const std::uint64_t before = device_backend(gpu()).statistics(gpu()).allocations;
    train(there, false);
    EXPECT_GT(device_backend(gpu()).statistics(gpu()).allocations, before + 100);
    expect_close(metric(there, "loss"), metric(here, "loss"), 1e-4);
    expect_close(metric(there, "grad_norm"), metric(here, "grad_norm"), 1e-3);
  }
}

TEST(CudaTraining, RecomputationPackingAndBalanceFollowTheCpu) {
  const TinyData data;
  const std::vector<std::string> more = {"recompute=true", "data.pack_tokens=40",
                                         "moe.balance_loss=0.01", "moe.bias_balancing_rate=0.01",
                                         "steps=3"};
  std::vector<std::string> on_cuda = more;
  on_cuda.push_back("device=cuda");
  const Recipe here = data.recipe("cpu", more), there = data.recipe("cuda", on_cuda);
  train(here, false);
  train(there, false);
  expect_close(metric(there, "loss"), metric(here, "loss"), 1e-4);
  expect_close(metric(there, "router_loss"), metric(here, "router_loss"), 1e-4);
}

TEST(CudaTraining, AnAdapterFollowsTheCpu) {
  const TinyData data;
  train(data.recipe("base", {"steps=1"}), false);
  for (const char* dtype : {"fp32", "bf16"}) {
    const std::vector<std::string> more = {
        "stage=2",
        "steps=3",
        "data.pack_tokens=40",
        "lora.rank=2",
        "lora.dropout=0.1",
        "optimizer.learning_rate=1e-2",
        "lora.targets=[\"decoder.attention\",\"decoder.mlp\",\"experts\",\"router\",\"head\","
        "\"lm_encoder\",\"tokenizer\",\"projector\"]",
        testing::set("model.init", data.folder() / "base"),
        fmt::format("dtype={}", dtype)};
    std::vector<std::string> on_cuda = more;
    on_cuda.push_back("device=cuda");
    const Recipe here = data.recipe(fmt::format("cpu_{}", dtype), more);
    const Recipe there = data.recipe(fmt::format("cuda_{}", dtype), on_cuda);
    train(here, false);
    train(there, false);
    const bool is_bf16 = std::string(dtype) == "bf16";
    expect_close(metric(there, "loss"), metric(here, "loss"), is_bf16 ? 1e-3 : 1e-4);
    EXPECT_NE(metric(here, "loss")[0], metric(here, "loss")[2]);
  }
}

TEST(CudaTraining, ResidualStreamsFollowTheCpu) {
  const TinyData data;
  for (const std::string kind : {"mhc", "hc"}) {
    SCOPED_TRACE(kind);
    const std::vector<std::string> more = {"model.residual=" + kind, "recompute=true",
                                           "log.diagnostics_every=1", "steps=3"};
    std::vector<std::string> on_cuda = more;
    on_cuda.push_back("device=cuda");
    const Recipe here = data.recipe("cpu_" + kind, more);
    const Recipe there = data.recipe("cuda_" + kind, on_cuda);
    train(here, false);
    train(there, false);
    expect_close(metric(there, "loss"), metric(here, "loss"), 1e-4);
    expect_close(metric(there, "grad_norm"), metric(here, "grad_norm"), 1e-3);
    const std::string gain = "gain_forward";
    EXPECT_EQ(metric(here, gain).size(), 3u);
    expect_close(metric(there, gain), metric(here, gain), 1e-3);
  }
}

TEST(CudaTraining, ATraceHasWhatRanOnTheDevice) {
  const TinyData data;
  const Recipe recipe = data.recipe("traced", {"device=cuda", "steps=1"});
  train(recipe, false, true);
  std::map<std::string, int> launches;
  const auto trace = nlohmann::json::parse(read_file(recipe.run_dir / "trace.json"));
  for (const auto& event : trace.at("traceEvents"))
    if (event.at("ph") == "X" && event.at("tid") == 2) {
      EXPECT_GE(event.at("ts").get<double>(), 0.0);
      EXPECT_GE(event.at("dur").get<double>(), 0.0);
      ++launches[event.at("name")];
    }
  for (const char* name : {"rms_norm", "rms_norm_backward", "attention", "adamw"})
    EXPECT_GT(launches[name], 0) << name;
}

TEST(CudaTraining, AMemoryBudgetIsOfTheDevice) {
  const TinyData data;
  const Recipe free = data.recipe("free", {"device=cuda"});
  const Recipe planned =
      data.recipe("planned", {"device=cuda", "memory_gib=1", "log.wall_clock=true"});
  train(free, false);
  train(planned, false);
  EXPECT_EQ(metric(planned, "loss"), metric(free, "loss"));
  const double predicted = metric(planned, "memory_predicted_bytes").back();
  const double measured = metric(planned, "peak_bytes").back();
  EXPECT_NEAR(predicted, measured, 0.1 * measured);
  EXPECT_EQ(metric(planned, "blocks_recomputed").back(), 0);
}

TEST(CudaTraining, Bf16StaysNearTheCpu) {
  const TinyData data;
  const Recipe here = data.recipe("cpu", {"dtype=bf16"});
  const Recipe there = data.recipe("cuda", {"dtype=bf16", "device=cuda"});
  train(here, false);
  train(there, false);
  expect_close(metric(there, "loss"), metric(here, "loss"), 2e-2);
}

TEST(CudaTraining, ACheckpointOfOneDeviceGoesOnOnTheOther) {
  const TinyData data;
  train(data.recipe("whole"), false);
  train(data.recipe("part", {"device=cuda", "steps=2"}), false);
  const Recipe rest = data.recipe("part");  // the rest on the CPU
  train(rest, true);
  expect_close(metric(rest, "loss"), metric(data.recipe("whole"), "loss"), 1e-4);
  const auto here = testing::tensors_of(data.folder() / "whole/checkpoints/step-000004");
  for (const auto& [name, value] :
       testing::tensors_of(data.folder() / "part/checkpoints/step-000004"))
    EXPECT_TRUE(testing::near(value, here.at(name), 1e-2)) << name;
}

TEST(CudaReading, GeneratesTheTokensOfTheCpu) {
  const testing::AnyConfig config = testing::tiny_model_config();
  const auto model_owner = testing::make_model(config, 1);
  OcrModel& model = *model_owner;
  testing::fill_weights(model, 2);
  const ModelInput prompt = testing::tiny_prompt(config, 2, 1, 3, 4);
  GenerationArgs args;
  args.max_new_tokens = 12;
  const auto want = generate(model, prompt, args);
  model.store().to(gpu());
  EXPECT_EQ(model.store().device(), gpu());
  EXPECT_EQ(generate(model, prompt, args), want);
}

/// Continuous batching: prompts with and without tiles and pictures that share three slots.
TEST(CudaReading, SlotsAreTakenAsOnTheCpu) {
  const testing::AnyConfig config = testing::tiny_model_config();
  const auto model_owner = testing::make_model(config, 1);
  OcrModel& model = *model_owner;
  testing::fill_weights(model, 2);
  std::vector<ModelInput> prompts;
  for (int i = 0; i < 6; ++i)
    prompts.push_back(testing::tiny_prompt(config, 1, i % 3 == 0 ? 2 : 0, 2 + i % 2,
                                           static_cast<std::uint64_t>(10 + i)));
  prompts[4] = {};
  prompts[4].input_ids = Tensor::full({1, 3}, 5, DType::i32);
  GenerationArgs args;
  args.max_new_tokens = 8;
  const auto read = [&] {
    std::vector<std::vector<std::int32_t>> out(prompts.size());
    std::size_t asked = 0;
    generate_stream(
        model,
        [&]() -> std::optional<ModelInput> {
          if (asked == prompts.size()) return std::nullopt;
          return prompts[asked++];
        },
        args, 3,
        [&](std::size_t number, std::vector<std::int32_t> tokens) {
          out[number] = std::move(tokens);
        });
    return out;
  };
  args.eos = generate(model, prompts[1], args)[0][3];
  const auto want = read();
  EXPECT_LT(want[1].size(), 4u);
  model.store().to(gpu());
  EXPECT_EQ(read(), want);
}

}  // namespace
}  // namespace lectern
