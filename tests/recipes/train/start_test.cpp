// What a run says or refuses before its first step, and what must not end it.
#include "recipes/train/start.h"

#include "nn/families.h"
#include "recipes/log/metrics.h"
#include "recipes/train/initial_weights.h"
#include "recipes/train/trainer.h"
#include "recipes/train/training_data.h"
#include "tests/recipes/spawn.h"
#include "tests/recipes/tiny_run.h"

#include <csignal>

namespace lectern {
namespace {

using testing::checkpoint;
using testing::Child;
using testing::Finished;
using testing::metrics_text;
using testing::set;
using testing::throws_with;
using testing::TinyData;

class TrainStart : public ::testing::Test {
 protected:
  std::vector<std::string> words(const std::vector<std::string>& overrides, bool resume = false,
                                 const std::string& run = "run") const {
    std::vector<std::string> out = {"train", data_.recipe_file(run).string()};
    for (const std::string& each : overrides) out.insert(out.end(), {"--set", each});
    if (resume) out.emplace_back("--resume");
    return out;
  }
  Finished start(const std::vector<std::string>& overrides, bool resume = false) const {
    return testing::run_lectern(words(overrides, resume));
  }
  std::filesystem::path run() const { return data_.folder() / "run"; }
  /// Flips a bit of a file.
  static void damage(const std::filesystem::path& file) {
    std::string bytes = read_file(file);
    bytes[bytes.size() - 3] ^= 4;
    write_file(file, bytes);
  }

  TinyData data_;
};

bool says(const Finished& finished, const std::string& text) {
  return finished.errors.find(text) != std::string::npos;
}

TEST_F(TrainStart, ChangedSettingsAreNamedAndTheOldOnesKept) {
  ASSERT_EQ(start({"steps=2"}).status, 0);
  const std::string before = read_file(run() / "config.toml");
  const Finished same = start({"steps=2"}, true);
  EXPECT_FALSE(says(same, "other settings")) << same.errors;
  EXPECT_FALSE(std::filesystem::exists(run() / "config-000002.toml"));
  const Finished other = start({"steps=4", "optimizer.learning_rate=0.5"}, true);
  EXPECT_EQ(other.status, 0) << other.errors;
  EXPECT_TRUE(says(other,
                   "other settings than steps 1 to 2 were trained with (kept in "
                   "config-000002.toml): steps was 2, is 4; optimizer.learning_rate was "
                   "0.003, is 0.5"))
      << other.errors;
  EXPECT_TRUE(says(other, "goes on from " + checkpoint(data_, "run", 2).string()));
  EXPECT_EQ(read_file(run() / "config-000002.toml"), before);
  EXPECT_NE(read_file(run() / "config.toml"), before);
}

TEST_F(TrainStart, WithoutCheckpointsTheRecordsOfTheRunBeforeStay) {
  ASSERT_EQ(start({}).status, 0);
  const std::string before = metrics_text(data_, "run"), recipe = read_file(run() / "config.toml");
  std::filesystem::remove_all(run() / "checkpoints");
  const Finished again = start({"steps=2"}, true);
  EXPECT_EQ(again.status, 0) << again.errors;
  EXPECT_TRUE(says(again,
                   "training begins from the start; the records of the run before are kept "
                   "as metrics-before-1.jsonl"))
      << again.errors;
  EXPECT_EQ(read_file(run() / "metrics-before-1.jsonl"), before);
  EXPECT_EQ(read_file(run() / "config-before-1.toml"), recipe);
  EXPECT_EQ(testing::line_count(run() / "metrics.jsonl"), 2);
  // Without --resume nothing is begun where checkpoints lie.
  std::filesystem::remove(run() / "metrics.jsonl");
  EXPECT_TRUE(
      says(start({}), "run_dir must be a new folder, got " + run().string() + " with checkpoints"));
}

TEST_F(TrainStart, ADamagedCheckpointIsPassedOver) {
  const std::vector<std::string> six = {"steps=6", "checkpoint.keep=9"};
  ASSERT_EQ(testing::run_lectern(words(six, false, "whole")).status, 0);
  ASSERT_EQ(start({"steps=4", "checkpoint.keep=9"}).status, 0);
  ASSERT_EQ(start(six, true).status, 0);  // as the recipe of the whole run
  std::filesystem::remove_all(checkpoint(data_, "run", 6));
  damage(checkpoint(data_, "run", 4) / "optimizer-00001-of-00001.safetensors");
  const Finished again = start(six, true);
  EXPECT_EQ(again.status, 0) << again.errors;
  EXPECT_TRUE(says(again, "step-000004/optimizer-00001-of-00001.safetensors: must have checksum"))
      << again.errors;
  EXPECT_TRUE(says(again, "goes on from " + checkpoint(data_, "run", 2).string()));
  EXPECT_TRUE(std::filesystem::exists(run() / "checkpoints/damaged-step-000004"));
  // Steps 1 and 2 had another schedule; from there on it is the undisturbed run's.
  EXPECT_EQ(testing::line_count(run() / "metrics.jsonl"), 6);
}

TEST_F(TrainStart, ACheckpointThatIsNotCompleteIsNamed) {
  ASSERT_EQ(start({}).status, 0);
  write_file(checkpoint(data_, "run", 4) / "state.json", "cut");
  const Finished again = start({}, true);
  EXPECT_EQ(again.status, 0) << again.errors;
  EXPECT_TRUE(says(again, "step-000004: is not complete")) << again.errors;
  EXPECT_TRUE(says(again, "goes on from " + checkpoint(data_, "run", 2).string()));
}

TEST_F(TrainStart, WithNothingButDamagedCheckpointsItDoesNotBegin) {
  ASSERT_EQ(start({}).status, 0);
  const std::string before = metrics_text(data_, "run");
  for (const int step : {2, 4})
    damage(checkpoint(data_, "run", step) / "model-00001-of-00001.safetensors");
  const Finished again = start({}, true);
  EXPECT_EQ(again.status, 1);
  EXPECT_TRUE(says(again, "none of the checkpoints can be used")) << again.errors;
  EXPECT_EQ(metrics_text(data_, "run"), before);
}

TEST_F(TrainStart, DamagedFirstWeightsAreRefused) {
  ASSERT_EQ(start({}).status, 0);
  damage(checkpoint(data_, "run", 4) / "model-00001-of-00001.safetensors");
  EXPECT_TRUE(throws_with(
      [&] { train(data_.recipe("next", {set("model.init", run())}), false); },
      {"step-000004/model-00001-of-00001.safetensors: must have checksum", "(damaged)"}));
}

TEST_F(TrainStart, OneRunAFolder) {
  Child first(words({"steps=100000", "checkpoint.every=0"}));
  ASSERT_TRUE(testing::wait_until(first, [&] {
    return testing::line_count(run() / "metrics.jsonl") >= 2;
  })) << first.errors();
  const Finished second = start({"steps=100000"}, true);
  EXPECT_EQ(second.status, 1);
  EXPECT_TRUE(says(
      second, fmt::format("{}: is in use by process {} on host ", run().string(), first.process())))
      << second.errors;
  EXPECT_TRUE(first.running());
  first.send(SIGKILL);
  first.wait();
  // A dead holder's lock is taken over.
  const Finished third = start({"steps=2"}, true);
  EXPECT_EQ(third.status, 0) << third.errors;
}

TEST_F(TrainStart, AnotherFreezeIsNamedByParameters) {
  ASSERT_EQ(start({"steps=2"}).status, 0);
  const Finished again = start({"freeze=[\"encoder\"]"}, true);
  EXPECT_EQ(again.status, 1);
  EXPECT_TRUE(says(again, "`freeze` must leave what the run trains, got ")) << again.errors;
  EXPECT_TRUE(says(again, "parameters that are frozen now and were not: model.sam_model."));
}

TEST_F(TrainStart, SaysWhichWeightsItBeganFrom) {
  const Finished first = start({});
  EXPECT_TRUE(says(first, "begins from random weights")) << first.errors;
  EXPECT_FALSE(says(first, "model.init names none"));
  const Finished second =
      testing::run_lectern(words({"stage=2", set("model.init", run())}, false, "second"));
  EXPECT_TRUE(says(second, "begins from the weights of " + checkpoint(data_, "run", 4).string()))
      << second.errors;
  const Finished random = testing::run_lectern(words({"stage=2"}, false, "random"));
  EXPECT_TRUE(says(random, "stage 2 begins from random weights: model.init names none"));
}

TEST_F(TrainStart, SaysWhatFiltersLeaveOut) {
  const Finished all = start({});
  EXPECT_FALSE(says(all, "left out")) << all.errors;
  const TinyData more(12);  // the words of pages 10 to 12 have five letters
  const Finished filtered = testing::run_lectern(
      {"train", more.recipe_file("run").string(), "--set", "data.max_characters=4"});
  EXPECT_EQ(filtered.status, 0);
  EXPECT_TRUE(says(filtered, "18 samples; 6 left out: 6 longer than max_characters"))
      << filtered.errors;
}

TEST_F(TrainStart, SaysThatValidationIsTraining) {
  const Finished same = start({set("data.validation", data_.shards()), "evaluation.samples=2"});
  EXPECT_EQ(same.status, 0) << same.errors;
  EXPECT_TRUE(says(same, "validation and training both have documents of these names"))
      << same.errors;
}

TEST_F(TrainStart, RecordsThatAreMissingAreSaid) {
  ASSERT_EQ(start({}).status, 0);
  const std::string text = metrics_text(data_, "run");
  write_file(run() / "metrics.jsonl", text.substr(0, text.find('\n') + 1) + "half a line");
  const Finished again = start({"steps=6"}, true);
  EXPECT_EQ(again.status, 0) << again.errors;
  EXPECT_TRUE(says(again, "has no records after step 1, the checkpoint is of step 4"))
      << again.errors;
}

TEST_F(TrainStart, StderrThatCannotBeWrittenDoesNotEndARun) {
  for (const char* redirect : {"2>/dev/full", "2>&-", "2> >(exit)"}) {
    std::filesystem::remove_all(run());
    Child child(words({"log.progress_seconds=1e-6"}), "",
                {"bash", "-c", std::string("exec \"$0\" \"$@\" ") + redirect});
    EXPECT_EQ(child.wait(), 0) << redirect;
    EXPECT_EQ(testing::line_count(run() / "metrics.jsonl"), 4) << redirect;
    EXPECT_TRUE(is_complete(checkpoint(data_, "run", 4))) << redirect;
  }
}

TEST_F(TrainStart, AHangUpSavesUnlessNohupWasAskedFor) {
  for (const bool nohup : {false, true}) {
    std::filesystem::remove_all(run());
    std::vector<std::string> launcher;
    if (nohup) launcher = {"bash", "-c", "trap '' HUP; exec \"$0\" \"$@\""};
    Child child(words({"steps=100000", "checkpoint.every=0"}), "", launcher);
    ASSERT_TRUE(testing::wait_until(
        child, [&] { return testing::line_count(run() / "metrics.jsonl") >= 2; }));
    child.send(SIGHUP);
    if (nohup) {
      const auto lines = testing::line_count(run() / "metrics.jsonl");
      EXPECT_TRUE(testing::wait_until(
          child, [&] { return testing::line_count(run() / "metrics.jsonl") > lines + 20; }));
      child.send(SIGTERM);
    }
    EXPECT_EQ(child.wait(), 1);
    EXPECT_TRUE(newest_complete(run() / "checkpoints")) << child.errors();
    EXPECT_NE(child.errors().find(nohup ? "stopped by Terminated" : "stopped by Hangup"),
              std::string::npos)
        << child.errors();
  }
}

TEST(TrainStartViews, ActivationsGrowWithTheViewAndWithWhatTrains) {
  const TinyData data;
  const auto bytes = [&](const std::vector<std::string>& overrides) {
    const Recipe recipe = data.recipe("run", overrides);
    return encoder_activation_bytes(recipe, *model_config(recipe));
  };
  const double usual = bytes({});
  EXPECT_GT(bytes({"view.global_size=64"}), 3 * usual);
  EXPECT_GT(bytes({"batch.micro_batch=4"}), 1.9 * usual);
  EXPECT_LT(bytes({"stage=3"}), usual);
  EXPECT_LT(bytes({"recompute=true"}), usual);
}

}  // namespace
}  // namespace lectern
