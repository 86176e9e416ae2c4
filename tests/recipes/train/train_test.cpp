// Training runs on synthetic pages: what each stage changes, what a run leaves behind, and that
// being stopped, killed or served from the encoder cache does not change a bit.
#include "data/samples/batch.h"
#include "nn/families.h"
#include "nn/model.h"
#include "nn/weights.h"
#include "recipes/checkpoint/folder.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/log/metrics.h"
#include "recipes/train/encoder_features.h"
#include "recipes/train/trainer.h"
#include "recipes/train/training_data.h"
#include "tests/nn/tiny_model.h"
#include "tests/recipes/spawn.h"
#include "tests/recipes/tiny_run.h"

#include <algorithm>
#include <limits>
#include <set>

namespace lectern {
namespace {

using testing::Child;
using testing::first_difference;
using testing::same_bits;
using testing::set;
using testing::tensors_of;
using testing::throws_with;
using testing::TinyData;

std::vector<double> losses(const TinyData& data, const std::string& run) {
  std::vector<double> out;
  for (const MetricFields& record : read_metrics(data.folder() / run / "metrics.jsonl"))
    if (record.contains("loss")) out.push_back(record["loss"].get<double>());
  return out;
}

bool starts_with_any(const std::string& name, const std::vector<std::string>& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](const std::string& prefix) { return name.starts_with(prefix); });
}

TEST(Train, StagesChangeWhatTheyTrainAndNothingElse) {
  const TinyData data;
  const auto config = parse_model_config(testing::tiny_config(), "config");
  std::map<std::string, Tensor> before;
  for (const auto& [name, tensor] : config->make(3)->store().state()) before[name] = tensor.clone();
  for (int stage = 1; stage <= 3; ++stage) {
    const std::string run = fmt::format("stage{}", stage);
    std::vector<std::string> overrides = {fmt::format("stage={}", stage)};
    if (stage > 1)
      overrides.push_back(set("model.init", data.folder() / fmt::format("stage{}", stage - 1)));
    const Recipe recipe = data.recipe(run, overrides);
    const auto frozen = config->prefixes_of(recipe.freeze);
    const TrainingSummary summary = train(recipe, false);
    EXPECT_EQ(summary.steps, 4);
    EXPECT_EQ(summary.stopped_by, 0);
    EXPECT_EQ(summary.checkpoint, checkpoint(data, run, 4).string());
    const auto after = tensors_of(summary.checkpoint);
    ASSERT_EQ(after.size(), before.size());
    for (const auto& [name, tensor] : after) {
      // No view of these runs takes the second query table.
      const bool same = starts_with_any(name, frozen) || name.find("query_1024") != name.npos;
      EXPECT_EQ(same_bits(tensor, before.at(name)), same) << run << ": " << name;
    }
    const auto moments = tensors_of(summary.checkpoint, "optimizer");
    EXPECT_FALSE(moments.empty());
    for (const auto& [name, tensor] : moments)
      EXPECT_FALSE(starts_with_any(name, frozen)) << "optimizer state of frozen " << name;
    EXPECT_EQ(std::filesystem::exists(data.folder() / run / "encoder-cache"), stage == 3);
    before = after;
  }
}

TEST(Train, RunFolderHasWhatTheDesignPromises) {
  const TinyData data;
  train(data.recipe("run", {"log.wall_clock=true", "log.tensorboard=true", "steps=5",
                            "checkpoint.keep=2", "moe.balance_loss=0.01"}),
        false);
  const auto run = data.folder() / "run";
  const auto records = read_metrics(run / "metrics.jsonl");
  ASSERT_EQ(records.size(), 5u);
  for (std::size_t i = 0; i < records.size(); ++i) {
    const MetricFields& record = records[i];
    for (const char* field : {"step", "loss", "grad_norm", "lr", "samples", "tokens", "seconds",
                              "peak_bytes", "expert_load", "router_loss"})
      EXPECT_TRUE(record.contains(field) && record[field].is_number()) << field;
    EXPECT_EQ(record["step"], i + 1);
    EXPECT_EQ(record["samples"], 4);
    EXPECT_GT(record["loss"].get<double>(), 0.0);
    EXPECT_GE(record["expert_load"].get<double>(), 1.0);
  }
  // Warm-up of one step, then the cosine falls.
  EXPECT_DOUBLE_EQ(records[0]["lr"].get<double>(), 3e-3);
  EXPECT_LT(records[4]["lr"].get<double>(), records[1]["lr"].get<double>());

  EXPECT_TRUE(std::filesystem::exists(run / "config.toml"));
  EXPECT_EQ(load_recipe(run / "config.toml").resolved, read_file(run / "config.toml"));
  std::int64_t event_files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(run))
    event_files += entry.path().filename().string().starts_with("events.out.tfevents.");
  EXPECT_EQ(event_files, 1);

  std::vector<std::int64_t> steps;
  for (const auto& entry : complete_checkpoints(run / "checkpoints")) steps.push_back(entry.step);
  EXPECT_EQ(steps, (std::vector<std::int64_t>{4, 5}));
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(checkpoint(data, "run", 5)))
    names.insert(entry.path().filename().string());
  EXPECT_EQ(names, (std::set<std::string>{
                       "COMPLETE", "config.json", "model-00001-of-00001.safetensors",
                       "model.safetensors.index.json", "optimizer-00001-of-00001.safetensors",
                       "optimizer.safetensors.index.json", "state.json", "tokenizer.json"}));
  const auto state = nlohmann::json::parse(read_file(checkpoint(data, "run", 5) / "state.json"));
  for (const char* field :
       {"step", "loader_position", "random", "schedule_step", "git_revision", "mesh"})
    EXPECT_TRUE(state.contains(field)) << field;
  EXPECT_EQ(state["step"], 5);
  EXPECT_EQ(state["loader_position"], 20);
}

TEST(Train, SameSeedSameBitsAnotherSeedOthers) {
  const TinyData data;
  train(data.recipe("a"), false);
  train(data.recipe("b"), false);
  train(data.recipe("c", {"seed=4"}), false);
  EXPECT_EQ(metrics_text(data, "a"), metrics_text(data, "b"));
  EXPECT_EQ(
      first_difference(tensors_of(checkpoint(data, "a", 4)), tensors_of(checkpoint(data, "b", 4))),
      "");
  EXPECT_NE(metrics_text(data, "a"), metrics_text(data, "c"));
}

/// Settings that train quickstart's model: at its sizes kernels choose other blocks for other
/// batches, which the tiny model is too small for.
std::vector<std::string> quickstart_model(std::vector<std::string> more) {
  const auto models = testing::source_folder() / "recipes/configs/models";
  more.insert(more.end(), {"steps=2", "batch.micro_batch=4", "view.global_size=128",
                           set("model.config", models / "quickstart.json")});
  return more;
}

TEST(Train, ThreadsDoNotChangeABit) {
  const TinyData data;
  train(data.recipe("one", quickstart_model({"threads=1", "data.workers=0"})), false);
  train(data.recipe("three", quickstart_model({"threads=3", "data.workers=2"})), false);
  EXPECT_EQ(metrics_text(data, "three"), metrics_text(data, "one"));
  EXPECT_EQ(first_difference(tensors_of(checkpoint(data, "three", 2)),
                             tensors_of(checkpoint(data, "one", 2))),
            "");
}

TEST(Train, MicroBatchesAndRecomputationDoNotChangeTheLoss) {
  const TinyData data;
  train(data.recipe("whole", {"batch.micro_batch=4"}), false);
  train(data.recipe("parts", {"batch.micro_batch=1"}), false);
  train(data.recipe("again", {"batch.micro_batch=4", "recompute=true"}), false);
  const auto whole = losses(data, "whole"), parts = losses(data, "parts"),
             again = losses(data, "again");
  ASSERT_EQ(whole.size(), 4u);
  for (std::size_t i = 0; i < whole.size(); ++i) {
    EXPECT_NEAR(parts[i], whole[i], 2e-5 * whole[i]);
    EXPECT_NEAR(again[i], whole[i], 2e-5 * whole[i]);
  }
}

TEST(Train, ResumingEqualsAnUndisturbedRun) {
  const TinyData data;
  const std::vector<std::string> kind = {"moe.bias_balancing_rate=0.001", "data.jitter_pixels=2"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), kind.begin(), kind.end());
    return more;
  };
  train(data.recipe("whole", with({"steps=6", "optimizer.schedule=constant"})), false);
  train(data.recipe("parts", with({"steps=3", "optimizer.schedule=constant"})), false);
  const Recipe rest = data.recipe("parts", with({"steps=6", "optimizer.schedule=constant"}));
  EXPECT_TRUE(throws_with([&] { train(rest, false); }, {"run_dir must be a new folder"}));
  EXPECT_EQ(train(rest, true).steps, 6);
  EXPECT_EQ(metrics_text(data, "parts"), metrics_text(data, "whole"));
  for (const char* stem : {"model", "optimizer"})
    EXPECT_EQ(first_difference(tensors_of(checkpoint(data, "parts", 6), stem),
                               tensors_of(checkpoint(data, "whole", 6), stem)),
              "");
  // A finished run stays as it is.
  EXPECT_EQ(train(rest, true).steps, 6);
  EXPECT_EQ(metrics_text(data, "parts"), metrics_text(data, "whole"));
}

TEST(Train, AModelThatReadsVisualTokensIsWholeInItsCheckpoint) {
  const TinyData data;
  const std::string visual = "model.decoder_reads=visual";
  train(data.recipe("whole", {visual}), false);
  const LoadedModel loaded = load_model_folder(data.folder() / "whole");
  EXPECT_EQ(loaded.model->config().to_json()["lectern"]["decoder_reads"], "visual");
  const auto saved = tensors_of(checkpoint(data, "whole", 4));
  for (const auto& [name, tensor] : loaded.model->store().state()) {
    ASSERT_TRUE(saved.contains(name)) << name;
    EXPECT_TRUE(same_bits(tensor.contiguous(), saved.at(name))) << name;
  }
  for (const auto& [name, tensor] : saved) EXPECT_EQ(name.find("query_"), name.npos) << name;
  // It goes on from its own weights, and a model with queries refuses them by name.
  EXPECT_NO_THROW(train(
      data.recipe("next", {visual, "steps=1", set("model.init", data.folder() / "whole")}), false));
  EXPECT_TRUE(throws_with(
      [&] {
        train(data.recipe("other", {"steps=1", set("model.init", data.folder() / "whole")}), false);
      },
      {"query_"}));
}

TEST(Train, ResumingNeedsNoInitialWeightsAndRefusesAnotherRun) {
  const TinyData data;
  train(data.recipe("first", {"steps=1"}), false);
  train(data.recipe("run", {"steps=2", set("model.init", data.folder() / "first")}), false);
  std::filesystem::remove_all(data.folder() / "first");
  EXPECT_NO_THROW(
      train(data.recipe("run", {"steps=3", set("model.init", data.folder() / "first")}), true));
  EXPECT_TRUE(throws_with([&] { train(data.recipe("run", {"seed=9"}), true); },
                          {"stage and seed must be 1 and 9", "got 1 and 3"}));
  EXPECT_TRUE(throws_with([&] { train(data.recipe("run", {"stage=2"}), true); },
                          {"stage and seed must be 2 and 3"}));
}

TEST(Train, ResumesWithoutACheckpointFromTheStart) {
  const TinyData data;
  train(data.recipe("a"), false);
  std::filesystem::remove_all(data.folder() / "a" / "checkpoints");
  const std::string before = metrics_text(data, "a");
  train(data.recipe("a"), true);
  EXPECT_EQ(metrics_text(data, "a"), before);
}

// ---- killed, stopped ----------------------------------------------------------------------------

/// Runs the program, killing it with SIGKILL once metrics.jsonl has `at` lines, for each of `at`,
/// and lets it finish after the last. Says how often the kill came before the end.
int run_with_kills(const TinyData& data, const std::string& run,
                   const std::vector<std::string>& overrides, const std::vector<int>& at) {
  std::vector<std::string> arguments = {"train", data.recipe_file(run).string()};
  for (const std::string& text : overrides) {
    arguments.push_back("--set");
    arguments.push_back(text);
  }
  const auto metrics = data.folder() / run / "metrics.jsonl";
  int kills = 0;
  for (const int lines : at) {
    Child child(arguments);
    testing::wait_until(child, [&] { return testing::line_count(metrics) >= lines; });
    child.send(SIGKILL);
    kills += child.wait() == -SIGKILL ? 1 : 0;
    if (arguments.back() != "--resume") arguments.push_back("--resume");
  }
  Child last(arguments);
  EXPECT_EQ(last.wait(), 0) << last.errors();
  return kills;
}

void expect_kills_change_nothing(const std::vector<std::string>& overrides, std::int64_t steps) {
  const TinyData data;
  EXPECT_EQ(run_with_kills(data, "whole", overrides, {}), 0);
  // Once before the first checkpoint, then between two, then just after one.
  EXPECT_GT(run_with_kills(data, "killed", overrides, {2, 13, 20}), 0);
  EXPECT_EQ(metrics_text(data, "killed"), metrics_text(data, "whole"));
  EXPECT_EQ(testing::line_count(data.folder() / "whole" / "metrics.jsonl"), steps);
  for (const char* stem : {"model", "optimizer"})
    EXPECT_EQ(first_difference(tensors_of(checkpoint(data, "killed", steps), stem),
                               tensors_of(checkpoint(data, "whole", steps), stem)),
              "");
}

TEST(TrainKilled, StageOnePackedTwoResolutions) {
  expect_kills_change_nothing(
      {"steps=60", "checkpoint.every=10", "data.pack_tokens=64", "view.resolutions=[16, 32]",
       "data.level=mixed", "data.word_share=0.7", "data.page_share=0.3", "data.jitter_pixels=1",
       "batch.global_size=2", "batch.micro_batch=1", "moe.bias_balancing_rate=0.01"},
      60);
}

TEST(TrainKilled, StageThreeWithEncoderCacheAndTiles) {
  expect_kills_change_nothing({"stage=3", "steps=60", "checkpoint.every=10", "data.level=page",
                               "view.crop=true", "optimizer.learning_rate=1e-3"},
                              60);
}

TEST(Train, TerminationSavesAndSaysHowToGoOn) {
  const TinyData data;
  const std::vector<std::string> overrides = {"steps=60", "checkpoint.every=0"};
  ASSERT_EQ(run_with_kills(data, "whole", overrides, {}), 0);
  std::vector<std::string> arguments = {"train", data.recipe_file("run").string(),
                                        "--set", "steps=60",
                                        "--set", "checkpoint.every=0"};
  Child child(arguments);
  const auto metrics = data.folder() / "run" / "metrics.jsonl";
  ASSERT_TRUE(testing::wait_until(child, [&] { return testing::line_count(metrics) >= 3; }));
  child.send(SIGTERM);
  EXPECT_EQ(child.wait(), 1);
  const auto saved = newest_complete(data.folder() / "run" / "checkpoints");
  ASSERT_TRUE(saved);
  EXPECT_LT(saved->step, 60) << "the run ended before the signal came";
  const std::string message =
      fmt::format("stopped by Terminated after step {}; saved {}; go on with --resume", saved->step,
                  saved->path.string());
  EXPECT_NE(child.errors().find(message), std::string::npos) << child.errors();

  arguments.insert(arguments.end(), {"--resume", "--json"});
  const testing::Finished rest = testing::run_lectern(arguments);
  EXPECT_EQ(rest.status, 0) << rest.errors;
  const auto summary = nlohmann::json::parse(rest.out);
  EXPECT_EQ(summary["steps"], 60);
  EXPECT_EQ(metrics_text(data, "run"), metrics_text(data, "whole"));
  EXPECT_EQ(first_difference(tensors_of(checkpoint(data, "run", 60)),
                             tensors_of(checkpoint(data, "whole", 60))),
            "");
}

// ---- encoder cache ------------------------------------------------------------------------------

std::vector<std::string> stage_three(std::vector<std::string> more = {}) {
  more.insert(more.end(),
              {"stage=3", "steps=8", "data.level=page", "view.crop=true", "batch.micro_batch=4"});
  return more;
}

TEST(TrainEncoderCache, SameBitsOnOffFullAndTorn) {
  const TinyData data;
  train(data.recipe("off", stage_three({"encoder_cache.enabled=false"})), false);
  train(data.recipe("on", stage_three()), false);
  EXPECT_EQ(metrics_text(data, "on"), metrics_text(data, "off"));
  const auto features = data.folder() / "on" / "encoder-cache" / "features.f32";
  const auto whole = std::filesystem::file_size(features);

  // A second run finds the first one's rows; some of them are torn.
  std::filesystem::resize_file(features, whole - 5);
  const auto shared = set("encoder_cache.dir", data.folder() / "on" / "encoder-cache");
  train(data.recipe("torn", stage_three({shared})), false);
  EXPECT_EQ(metrics_text(data, "torn"), metrics_text(data, "off"));
  EXPECT_EQ(std::filesystem::file_size(features), whole);

  train(data.recipe("full", stage_three({fmt::format("encoder_cache.max_bytes={}", whole / 2)})),
        false);
  EXPECT_EQ(metrics_text(data, "full"), metrics_text(data, "off"));
  const auto kept =
      std::filesystem::file_size(data.folder() / "full" / "encoder-cache" / "features.f32");
  EXPECT_GT(kept, 0u);
  EXPECT_LE(kept, whole / 2);
}

TEST(TrainEncoderCache, SameBitsOnAndOffInQuickstartsModel) {
  const TinyData data;
  for (const char* enabled : {"true", "false"})
    train(data.recipe(enabled, quickstart_model(
                                   {"stage=3", fmt::format("encoder_cache.enabled={}", enabled)})),
          false);
  EXPECT_EQ(metrics_text(data, "true"), metrics_text(data, "false"));
}

TEST(TrainEncoderCache, BelongsToOneEncoder) {
  const TinyData data;
  const auto shared = set("encoder_cache.dir", data.folder() / "cache");
  train(data.recipe("first", stage_three({shared})), false);
  const std::string owner = read_file(data.folder() / "cache" / "encoder.txt");
  train(data.recipe("other", stage_three({shared, "seed=4"})), false);
  train(data.recipe("other-off", stage_three({"encoder_cache.enabled=false", "seed=4"})), false);
  EXPECT_NE(read_file(data.folder() / "cache" / "encoder.txt"), owner);
  EXPECT_EQ(metrics_text(data, "other"), metrics_text(data, "other-off"));
}

TEST(TrainEncoderCache, RowsOfAnotherDtypeAreNotTaken) {
  const TinyData data;
  const auto shared = set("encoder_cache.dir", data.folder() / "cache");
  train(data.recipe("single", stage_three({shared})), false);
  train(data.recipe("half", stage_three({shared, "dtype=bf16"})), false);
  train(data.recipe("half-off", stage_three({"encoder_cache.enabled=false", "dtype=bf16"})), false);
  EXPECT_EQ(metrics_text(data, "half"), metrics_text(data, "half-off"));
  EXPECT_NE(metrics_text(data, "half"), metrics_text(data, "single"));
}

TEST(TrainEncoderCache, ATrainedEncoderIsRefused) {
  const TinyData data;
  Recipe recipe = data.recipe("run", stage_three());
  recipe.freeze = {"model.sam_model."};
  EXPECT_TRUE(
      throws_with([&] { train(recipe, false); },
                  {"encoder_cache.enabled", "needs a frozen encoder", "model.qwen2_model."}));
}

// ---- numbers that are not finite ----------------------------------------------------------------

/// A checkpoint of a one-step run with `value` in one weight.
void poison(const TinyData& data, const std::string& run, const std::string& name, float value) {
  const auto folder = checkpoint(data, run, 1);
  const auto model_owner = testing::make_model(read_model_config(folder / "config.json"), 0);
  OcrModel& model = *model_owner;
  load_weights(model, folder);
  for (const auto& [part, weight] : model.store().state())
    if (part == name) weight.data<float>()[0] = value;
  save_model(model, folder);
  write_file(folder / "COMPLETE", "");  // its checksums are not these weights'
}

TEST(TrainNotFinite, StopsBeforeTheUpdateNamingStepAndParameter) {
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), 3e38f}) {
    const TinyData data;
    train(data.recipe("good", {"steps=1"}), false);
    poison(data, "good", "model.layers.1.self_attn.q_proj.weight", value);
    const Recipe recipe = data.recipe("bad", {set("model.init", data.folder() / "good")});
    EXPECT_TRUE(throws_with(
        [&] { train(recipe, false); },
        {"step 1", "the gradient of model.", "is not finite", "no parameter was updated"}))
        << value;
    EXPECT_EQ(metrics_text(data, "bad"), "");
    EXPECT_FALSE(newest_complete(data.folder() / "bad" / "checkpoints"));
  }
}

TEST(TrainNotFinite, AFrozenPartThatIsPoisonedNamesTheLoss) {
  const TinyData data;
  train(data.recipe("good", {"steps=1"}), false);
  poison(data, "good", "model.sam_model.neck.0.weight", std::numeric_limits<float>::infinity());
  Recipe recipe = data.recipe(
      "bad", {"stage=3", set("model.init", data.folder() / "good"), "encoder_cache.enabled=false"});
  EXPECT_TRUE(throws_with([&] { train(recipe, false); }, {"step 1", "not finite"}));
}

TEST(TrainNotFinite, ADivergingRunKeepsItsLastCheckpoint) {
  const TinyData data;
  const Recipe recipe = data.recipe("run", {"steps=6", "optimizer.learning_rate=1e30",
                                            "optimizer.schedule=constant", "checkpoint.every=1"});
  EXPECT_TRUE(throws_with([&] { train(recipe, false); }, {"step 2", "is not finite"}));
  EXPECT_EQ(newest_complete(data.folder() / "run" / "checkpoints")->step, 1);
  EXPECT_EQ(testing::line_count(data.folder() / "run" / "metrics.jsonl"), 1);
}

// ---- packing ------------------------------------------------------------------------------------

double mean_loss(const Recipe& recipe, const OcrModel& model, const Batch& batch) {
  const NoGrad off;
  EncoderFeatures features(recipe, model);
  ForwardContext context;
  const ModelInput input = input_of(batch);
  const MediaRows visual = features.features_of(batch, input, context);
  const ModelLoss loss = model.loss(input, context, &visual);
  EXPECT_EQ(loss.count, batch.trained_tokens);
  return loss.loss_sum.value().item() / static_cast<double>(loss.count);
}

TEST(Train, PackedAndPaddedBatchesHaveTheSameLoss) {
  const TinyData data;
  for (const bool tiles : {false, true}) {
    const Recipe recipe =
        data.recipe(tiles ? "tiles" : "words", {"data.level=mixed", "data.page_share=1.0",
                                                tiles ? "view.crop=true" : "data.word_share=1.0"});
    const testing::AnyConfig config = parse_model_config(testing::tiny_config(), "config");
    const auto model_owner = testing::make_model(config, 7);
    const OcrModel& model = *model_owner;
    const auto set = training_samples(recipe, config, testing::tiny_tokenizer());
    const Sampler sampler(set->sampler_sources(), 1);
    std::vector<Sample> samples;
    for (std::uint64_t i = 0; i < 5; ++i) samples.push_back(set->make(sampler.at(i)));
    const Batch padded = make_batch(samples, set->options(), {});
    const Batch packed = make_batch(samples, set->options(), {.pack_tokens = 4096});
    ASSERT_EQ(padded.input_ids.dim(0), 5);
    ASSERT_EQ(packed.input_ids.dim(0), 1);
    EXPECT_NEAR(mean_loss(recipe, model, packed), mean_loss(recipe, model, padded), 1e-5);
  }
}

}  // namespace
}  // namespace lectern
