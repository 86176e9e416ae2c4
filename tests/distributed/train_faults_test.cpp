// Faults under mpirun: they end the job on all ranks, are told with rank and step, and the run goes
// on from its newest checkpoint as if nothing had been.
#include "nn/weights.h"
#include "recipes/checkpoint/model_folder.h"
#include "tests/distributed/train_ranks.h"
#include "tests/nn/tiny_model.h"

#include <sys/resource.h>

#include <limits>

namespace lectern {
namespace {

using testing::expect_job_ended;
using testing::Overrides;
using testing::RanksChild;
using testing::started;
using TrainFaults = testing::TrainRanks;

TEST_F(TrainFaults, ASignalToOneRankSavesAndStopsAll) {
  run(2, "whole", {"steps=60", "checkpoint.every=0"});
  auto words = arguments("run", {"steps=60", "checkpoint.every=0"});
  auto child = started(2, words, folder("run") / "metrics.jsonl", 3);
  const auto ranks = child->rank_processes();
  ASSERT_EQ(ranks.size(), 2u);
  ::kill(ranks.at(1), SIGTERM);
  expect_job_ended(*child, ranks);
  const auto saved = newest_complete(folder("run") / "checkpoints");
  ASSERT_TRUE(saved) << child->errors();
  EXPECT_LT(saved->step, 60);
  EXPECT_NE(child->errors().find(fmt::format("stopped by Terminated after step {}", saved->step)),
            std::string::npos)
      << child->errors();
  EXPECT_NE(child->errors().find("rank 1 of 2 on "), std::string::npos);
  run(2, "run", {"steps=60", "checkpoint.every=0"}, true);
  EXPECT_EQ(metrics_text("run"), metrics_text("whole"));
  expect_same_tensors("run", "whole", 60);
}

/// Two ranks alike and a third with other arguments.
std::vector<std::string> and_another_rank(std::vector<std::string> alike,
                                          const std::vector<std::string>& other) {
  alike.insert(alike.end(), {":", "-np", "1", testing::lectern_binary()});
  alike.insert(alike.end(), other.begin(), other.end());
  return alike;
}

TEST_F(TrainFaults, RanksThatWereToldOtherwiseDoNotBegin) {
  for (const Overrides& other : std::vector<Overrides>{
           {"optimizer.learning_rate=5e-4"}, {"mesh.pp=3"}, {"data.max_text_tokens=23"}}) {
    RanksChild child(2, and_another_rank(arguments("run", {}), arguments("run", other)));
    EXPECT_NE(child.wait(), 0);
    const std::string key = other[0].substr(0, other[0].find('='));
    for (const std::string& part : {std::string("the recipe of rank 2 on "), key + " is "})
      EXPECT_NE(child.errors().find(part), std::string::npos) << part << " in " << child.errors();
    EXPECT_FALSE(std::filesystem::exists(folder("run")));
  }
  auto resuming = arguments("run", {});
  resuming.emplace_back("--resume");
  RanksChild child(2, and_another_rank(arguments("run", {}), resuming));
  EXPECT_NE(child.wait(), 0);
  EXPECT_NE(child.errors().find("--resume is true, not false"), std::string::npos)
      << child.errors();
}

TEST_F(TrainFaults, AKilledRankIsToldWithHostAndStep) {
  auto child = started(2, arguments("run", {"steps=100000", "checkpoint.every=0"}),
                       folder("run") / "metrics.jsonl", 3);
  const auto ranks = child->rank_processes();
  ASSERT_EQ(ranks.size(), 2u);
  ::kill(ranks.at(0), SIGKILL);
  expect_job_ended(*child, ranks);
  const std::string errors = child->errors();
  EXPECT_NE(errors.find("signal 9"), std::string::npos) << errors;         // mpirun: rank and host
  EXPECT_NE(errors.find("rank 1 of 2 on "), std::string::npos) << errors;  // the other: its step
  EXPECT_NE(errors.find(", step "), std::string::npos) << errors;
}

TEST_F(TrainFaults, AHungRankEndsTheJobAfterTheLimit) {
  auto child =
      started(2, arguments("run", {"steps=100000", "checkpoint.every=0", "mesh.wait_seconds=2"}),
              folder("run") / "metrics.jsonl", 3);
  const auto ranks = child->rank_processes();
  ASSERT_EQ(ranks.size(), 2u);
  ::kill(ranks.at(1), SIGSTOP);
  expect_job_ended(*child, ranks);
  const std::string errors = child->errors();
  EXPECT_NE(errors.find("rank 0 of 2 on "), std::string::npos) << errors;
  EXPECT_NE(errors.find("waited 2 s for rank 1, which did not answer"), std::string::npos)
      << errors;
}

TEST_F(TrainFaults, ANumberThatIsNotFiniteEndsTheJob) {
  run(0, "good", {"steps=1"});
  const auto folder_of_weights = checkpoint("good", 1);
  const auto model_owner =
      testing::make_model(read_model_config(folder_of_weights / "config.json"), 0);
  OcrModel& model = *model_owner;
  load_weights(model, folder_of_weights);
  for (const auto& [name, weight] : model.store().state())
    if (name == "model.layers.1.self_attn.q_proj.weight")
      weight.data<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  save_model(model, folder_of_weights);
  write_file(folder_of_weights / "COMPLETE", "");  // its checksums are not these weights'
  RanksChild child(2,
                   arguments("bad", {fmt::format("model.init=\"{}\"", folder("good").string())}));
  expect_job_ended(child, child.rank_processes());
  const std::string errors = child.errors();
  for (const char* part : {"lectern: rank 0 of 2 on ", ", step 1: ", "the gradient of model.",
                           "is not finite", "no parameter was updated"})
    EXPECT_NE(errors.find(part), std::string::npos) << part << " in " << errors;
}

TEST_F(TrainFaults, AFullDiskOnOneRankIsToldByAllAndLeavesTheCheckpointBefore) {
  for (const bool asynchronous : {true, false}) {
    const std::string name = asynchronous ? "behind" : "at-once";
    const Overrides kind = {"checkpoint.every=4", "optimizer.schedule=constant",
                            fmt::format("checkpoint.asynchronous={}", asynchronous)};
    const auto with = [&](std::int64_t steps) {
      Overrides out = kind;
      out.push_back(fmt::format("steps={}", steps));
      return out;
    };
    auto child = started(2, arguments(name, with(100000)), folder(name) / "metrics.jsonl", 1);
    ASSERT_TRUE(testing::wait_until(*child, [&] {
      return newest_complete(folder(name) / "checkpoints").has_value();
    })) << child->errors();
    const auto ranks = child->rank_processes();
    ASSERT_EQ(ranks.size(), 2u);
    // From now on rank 1, which writes nothing but its share of checkpoints, gets 2000 bytes a
    // file.
    const rlimit limit{2000, 2000};
    ASSERT_EQ(::prlimit(ranks.at(1), RLIMIT_FSIZE, &limit, nullptr), 0);
    expect_job_ended(*child, ranks);
    const std::string errors = child->errors();
    EXPECT_NE(errors.find("-00002-of-00002.safetensors: cannot write: File too large"),
              std::string::npos)
        << errors;
    EXPECT_NE(errors.find("lectern: rank 0 of 2 on "), std::string::npos) << errors;
    const auto newest = newest_complete(folder(name) / "checkpoints");
    ASSERT_TRUE(newest) << errors;
    EXPECT_EQ(newest->step % 4, 0);
    for (const auto& entry : std::filesystem::directory_iterator(folder(name) / "checkpoints"))
      EXPECT_FALSE(entry.path().filename().string().starts_with(".tmp-")) << entry.path();
    run(2, name, with(newest->step + 3), true);
    run(2, name + "-whole", with(newest->step + 3));
    EXPECT_EQ(metrics_text(name), metrics_text(name + "-whole"));
    expect_same_tensors(name, name + "-whole", newest->step + 3);
  }
}

}  // namespace
}  // namespace lectern
