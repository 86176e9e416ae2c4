// Sources of a recipe, drawn and cut, and the curriculum that moves through them.
#include "data/samples/drawn.h"
#include "data/samples/loader.h"
#include "recipes/checkpoint/folder.h"
#include "recipes/log/metrics.h"
#include "recipes/train/trainer.h"
#include "recipes/train/training_data.h"
#include "tests/data/text_sample.h"
#include "tests/nn/tiny_model.h"
#include "tests/recipes/spawn.h"
#include "tests/recipes/tiny_run.h"

#include <set>

namespace lectern {
namespace {

using testing::Child;
using testing::first_difference;
using testing::tensors_of;
using testing::throws_with;
using testing::TinyData;

/// A recipe file of three levels over a drawn and a cut source.
/// Over 60 lines: the text of a recipe.
std::filesystem::path curriculum_file(const TinyData& data, const std::string& run) {
  const auto path = data.folder() / (run + ".toml");
  write_file(data.folder() / "text.txt", testing::kEnglish);
  write_file(path, fmt::format(R"(stage = 1
steps = 30
run_dir = "{0}/{1}"
seed = 3
threads = 1
[model]
config = "{0}/config.json"
[data]
tokenizer = "{0}/tokenizer.json"
prompt = "<image>"
max_text_tokens = 24
workers = 2
[[data.sources]]
name = "drawn"
kind = "synthetic"
level = "word"
text = ["{0}/text.txt"]
max_characters = 6
font_size = [8, 12]
noise = 5
[[data.sources]]
name = "cut"
kind = "shards"
level = "word"
shards = "{0}/shards"
weight = 2
[[data.validation_sources]]
name = "cut words"
kind = "shards"
level = "word"
shards = "{0}/shards"
[[data.validation_sources]]
name = "drawn words"
kind = "synthetic"
level = "word"
text = ["{0}/text.txt"]
max_characters = 6
[[curriculum]]
sources = ["drawn"]
validation = ["drawn words"]
max_steps = 7
[[curriculum]]
name = "both"
weights = [3, 1]
jitter_pixels = 2
measure = "loss"
advance_below = 100
[[curriculum]]
sources = ["cut"]
[view]
global_size = 32
tile_size = 32
crop = false
resolutions = [16, 32]
[optimizer]
learning_rate = 3e-3
warmup_steps = 1
[batch]
global_size = 4
micro_batch = 2
[checkpoint]
every = 5
[evaluation]
every = 4
samples = 6
max_new_tokens = 4
[log]
wall_clock = false
tensorboard = true
progress_seconds = 1e6
)",
                               data.folder().string(), run));
  return path;
}

Recipe curriculum(const TinyData& data, const std::string& run,
                  const std::vector<std::string>& overrides = {}) {
  return load_recipe(curriculum_file(data, run), overrides);
}

TEST(Curriculum, LevelsBeginWhenTheRuleSays) {
  const TinyData data;
  train(curriculum(data, "run"), false);
  std::map<std::int64_t, std::int64_t> level_of;  // step -> level
  std::set<std::int64_t> evaluated;
  for (const MetricFields& record : read_metrics(data.folder() / "run" / "metrics.jsonl")) {
    const auto step = record["step"].get<std::int64_t>();
    ASSERT_TRUE(record.contains("level"));
    if (record.contains("loss")) level_of[step] = record["level"].get<std::int64_t>();
    if (!record.contains("eval_cer")) continue;
    evaluated.insert(step);
    EXPECT_TRUE(record["eval_loss"].get<double>() > 0);
    EXPECT_TRUE(record.contains("eval_cer/drawn words"));
    EXPECT_EQ(record.contains("eval_cer/cut words"), step > 7);
    EXPECT_EQ(record["eval_samples"], step > 7 ? 12 : 6);
  }
  EXPECT_EQ(evaluated, (std::set<std::int64_t>{4, 8, 12, 16, 20, 24, 28, 30}));
  // After seven steps by the clock; at the next evaluation, step 8, the loss is below 100.
  for (const auto& [step, level] : level_of) EXPECT_EQ(level, step <= 7 ? 1 : step <= 8 ? 2 : 3);
  const auto state = nlohmann::json::parse(read_file(checkpoint(data, "run", 30) / "state.json"));
  EXPECT_EQ(state["curriculum"]["level"], 2);
  EXPECT_EQ(state["curriculum"]["step"], 8);
  EXPECT_EQ(state["curriculum"]["loader_position"], 32);
}

TEST(Curriculum, AThresholdThatIsNotReachedHoldsTheLevel) {
  const TinyData data;
  train(curriculum(data, "run", {"curriculum.1.advance_below=0.0001", "steps=16"}), false);
  for (const MetricFields& record : read_metrics(data.folder() / "run" / "metrics.jsonl"))
    EXPECT_LE(record["level"].get<std::int64_t>(), 2);
}

TEST(Curriculum, ResumedAndKilledRunsAreTheUndisturbedOne) {
  const TinyData data;
  const auto run = [&](const std::string& name, bool kill) {
    std::vector<std::string> arguments = {"train", curriculum_file(data, name).string()};
    const auto metrics = data.folder() / name / "metrics.jsonl";
    int kills = 0;
    // In the first level, just after it, in the third between two checkpoints.
    for (const int lines : kill ? std::vector<int>{3, 10, 21} : std::vector<int>{}) {
      Child child(arguments);
      testing::wait_until(child, [&] { return testing::line_count(metrics) >= lines; });
      child.send(SIGKILL);
      kills += child.wait() == -SIGKILL ? 1 : 0;
      if (arguments.back() != "--resume") arguments.push_back("--resume");
    }
    Child last(arguments);
    EXPECT_EQ(last.wait(), 0) << last.errors();
    return kills;
  };
  EXPECT_EQ(run("whole", false), 0);
  EXPECT_GT(run("killed", true), 0);
  EXPECT_EQ(metrics_text(data, "killed"), metrics_text(data, "whole"));
  for (const char* stem : {"model", "optimizer"})
    EXPECT_EQ(first_difference(tensors_of(checkpoint(data, "killed", 30), stem),
                               tensors_of(checkpoint(data, "whole", 30), stem)),
              "");
  EXPECT_EQ(read_file(checkpoint(data, "killed", 30) / "state.json"),
            read_file(checkpoint(data, "whole", 30) / "state.json"));
}

TEST(Curriculum, WorkersDoNotChangeABit) {
  const TinyData data;
  train(curriculum(data, "none", {"data.workers=0"}), false);
  train(curriculum(data, "three", {"data.workers=3"}), false);
  EXPECT_EQ(metrics_text(data, "none"), metrics_text(data, "three"));
}

TEST(Curriculum, ACheckpointBeyondTheRecipesLevelsIsRefused) {
  const TinyData data;
  train(curriculum(data, "run"), false);
  Recipe shorter = curriculum(data, "run");
  shorter.curriculum.resize(1);
  EXPECT_TRUE(throws_with([&] { train(shorter, true); }, {"is at level 3", "the recipe has 1"}));
}

TEST(Curriculum, MixturesFollowTheWeights) {
  const TinyData data;
  const Recipe recipe = curriculum(data, "run");
  const testing::AnyConfig config = parse_model_config(testing::tiny_config(), "config");
  const TrainingData training(recipe, config, testing::tiny_tokenizer());
  ASSERT_EQ(training.levels(), 3);
  const auto first = training.training(0), second = training.training(1),
             third = training.training(2);
  EXPECT_EQ(first->sampler_sources().size(), 1u);
  EXPECT_EQ(first->units(0), std::int64_t{1} << 32);
  ASSERT_EQ(second->sampler_sources().size(), 2u);
  EXPECT_EQ(second->sampler_sources()[0].weight, 3);
  EXPECT_EQ(second->options().jitter_pixels, 2);
  EXPECT_EQ(third->sampler_sources()[0].weight, 2);  // the source's own
  EXPECT_EQ(third->units(0), 8);
  EXPECT_EQ(training.validation(0).size(), 1u);
  EXPECT_EQ(training.validation(0)[0].name, "drawn words");
  EXPECT_EQ(training.validation(2).size(), 2u);
  EXPECT_EQ(training.validation(2)[0].samples->options().jitter_pixels, 0);

  // Counts that are known without drawing are those of what is drawn.
  LoaderOptions options;
  options.seed = 5;
  options.global_batch = 64;
  options.workers = 0;
  Loader loader(second, options);
  const LoadedBatch batch = loader.next();
  EXPECT_EQ(batch.trained_tokens, batch.step_trained_tokens);
  const Sampler sampler(second->sampler_sources(), 5);
  int drawn = 0;
  for (std::uint64_t i = 0; i < 64; ++i) {
    const Draw draw = sampler.at(i);
    const Sample sample = second->make(draw);
    EXPECT_EQ(static_cast<std::int64_t>(sample.response_ids.size()) + 1,
              second->trained_count(draw));
    EXPECT_EQ(testing::tiny_tokenizer().decode(sample.response_ids), sample.text);
    EXPECT_EQ(sample.key, second->key(draw));
    EXPECT_LE(second->token_count(draw), second->longest());
    EXPECT_EQ(sample.global.width, 16);
    EXPECT_EQ(second->make(draw, 1).global.width, 32);
    EXPECT_TRUE(second->make(draw, 0, false).global.empty());
    drawn += draw.source == 0;
  }
  EXPECT_GT(drawn, 38);  // three of four, of 64
  EXPECT_LT(drawn, 58);
}

TEST(Curriculum, ResolvedRecipeIsTheSameRecipe) {
  const TinyData data;
  const Recipe recipe = curriculum(data, "run", {"data.sources.1.weight=5"});
  EXPECT_EQ(recipe.data.sources[1].weight, 5);
  const Recipe again = parse_recipe(ConfigDocument::parse(recipe.resolved, "config.toml"));
  EXPECT_EQ(again.resolved, recipe.resolved);
  EXPECT_EQ(dynamic_cast<const DrawnSettings&>(*again.data.sources[0].settings).look.noise, 5);
  EXPECT_EQ(again.curriculum[1].measure, "loss");
  EXPECT_EQ(again.curriculum[2].name, "level 3");
}

TEST(Curriculum, WhatCannotBeIsRefused) {
  const TinyData data;
  const auto refused = [&](const std::vector<std::string>& overrides,
                           std::initializer_list<std::string_view> parts) {
    return throws_with([&] { curriculum(data, "run", overrides); }, parts);
  };
  EXPECT_TRUE(refused({"curriculum.0.sources=[\"dran\"]"},
                      {"curriculum[0].sources must be names of data.sources", "got \"dran\""}));
  EXPECT_TRUE(refused({"curriculum.1.weights=[1]"}, {"curriculum[1].weights", "2 sources, got 1"}));
  EXPECT_TRUE(refused({"curriculum.0.max_steps=0"}, {"curriculum", "[0] must have"}));
  EXPECT_TRUE(refused({"curriculum.0.max_step=1"},
                      {"unknown key `max_step` in [curriculum[0]]", "`max_steps`"}));
  EXPECT_TRUE(refused({"data.sources.1.font_size=[1, 2]"}, {"unknown key `font_size`"}));
  EXPECT_TRUE(
      refused({"data.sources.0.kind=paint"}, {"data.sources[0].kind must be one of", "\"paint\""}));
  EXPECT_TRUE(refused({"data.sources.0.kind=synthetik"}, {"did you mean \"synthetic\"?"}));
  EXPECT_TRUE(refused({"data.sources.0.paper=20"}, {"data.sources[0].paper"}));
  EXPECT_TRUE(refused({"data.sources.1.name=drawn"}, {"\"drawn\" twice"}));
  EXPECT_TRUE(refused({"data.sources.7.name=x"}, {"has items 0 .. 1, got 7"}));
  EXPECT_TRUE(refused({"data.sources=3"}, {"data.sources must be a list of tables"}));
  EXPECT_TRUE(refused({"data.sources=[3]"}, {"data.sources[0] must be a table, got 3"}));
  EXPECT_TRUE(refused({"data.sources=[]", "curriculum=[]"}, {"at least one source"}));
  EXPECT_TRUE(refused({"data.shards=[\"x\"]"}, {"data.shards must be left out"}));
  EXPECT_TRUE(refused({"data.validation=x"}, {"data.validation must be left out"}));
  const Recipe fonts = curriculum(data, "run", {"data.sources.0.fonts=[\"No Such Font\"]"});
  EXPECT_TRUE(throws_with([&] { train(fonts, false); }, {"No Such Font"}));
}

}  // namespace
}  // namespace lectern
