// Training under mpirun: the same losses as one rank, the same bits when repeated, checkpoints that
// any number of ranks goes on from, and faults that end the job on all ranks.
#include "nn/ocr2/weights.h"
#include "recipes/checkpoint_folder.h"
#include "recipes/metrics.h"
#include "recipes/model_folder.h"
#include "recipes/trainer.h"
#include "tests/distributed/mpirun.h"
#include "tests/recipes/tiny_run.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <random>
#include <set>

namespace lectern {
namespace {

using testing::first_difference;
using testing::lives;
using testing::RanksChild;
using testing::tensors_of;
using testing::TinyData;
using Overrides = std::vector<std::string>;

class TrainRanks : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_mpi()) GTEST_SKIP() << "built without MPI";
  }

  /// Eight samples a step in batches of two: up to four ranks.
  static Overrides with(const Overrides& more) {
    Overrides out = {"batch.global_size=8"};
    out.insert(out.end(), more.begin(), more.end());
    return out;
  }

  std::vector<std::string> arguments(const std::string& run, const Overrides& overrides) const {
    std::vector<std::string> out = {"train", data_.recipe_file(run).string()};
    for (const std::string& text : with(overrides)) {
      out.push_back("--set");
      out.push_back(text);
    }
    return out;
  }

  /// Runs to the end on `ranks` ranks; 0 ranks: in this process.
  void run(int ranks, const std::string& name, const Overrides& overrides, bool resume = false) {
    if (ranks == 0) {
      train(data_.recipe(name, with(overrides)), resume);
      return;
    }
    auto words = arguments(name, overrides);
    if (resume) words.emplace_back("--resume");
    RanksChild child(ranks, words);
    EXPECT_EQ(child.wait(), 0) << name << ": " << child.errors();
  }

  std::filesystem::path folder(const std::string& run) const { return data_.folder() / run; }
  std::filesystem::path checkpoint(const std::string& run, std::int64_t step) const {
    return folder(run) / "checkpoints" / checkpoint_name(step);
  }
  std::string metrics_text(const std::string& run) const {
    return read_file(folder(run) / "metrics.jsonl");
  }

  /// Every number of the records of two runs, but for the fields of several ranks alone.
  void expect_close(const std::string& got, const std::string& want, double bound = 1e-5) const {
    const auto a = read_metrics(folder(got) / "metrics.jsonl");
    const auto b = read_metrics(folder(want) / "metrics.jsonl");
    ASSERT_EQ(a.size(), b.size()) << got;
    for (std::size_t i = 0; i < a.size(); ++i)
      for (const auto& [field, value] : b[i].items()) {
        ASSERT_TRUE(a[i].contains(field)) << got << ": " << field;
        const double x = a[i][field].get<double>(), y = value.get<double>();
        if (field.ends_with("stream_deviation")) {  // of sums from 1: it has the rounding of 1
          EXPECT_NEAR(x, y, 1e-7) << got << ", record " << i + 1 << ": " << field;
          continue;
        }
        EXPECT_NEAR(x, y, bound * std::abs(y)) << got << ", record " << i + 1 << ": " << field;
      }
  }

  void expect_same_tensors(const std::string& got, const std::string& want, std::int64_t step) {
    for (const char* stem : {"model", "optimizer"})
      EXPECT_EQ(first_difference(tensors_of(checkpoint(got, step), stem),
                                 tensors_of(checkpoint(want, step), stem)),
                "")
          << got << " " << stem;
  }

  TinyData data_{6};
};

TEST_F(TrainRanks, FollowOneRankInEveryStage) {
  for (int stage = 1; stage <= 3; ++stage) {
    const Overrides kind = {fmt::format("stage={}", stage), "steps=20",
                            "moe.balance_loss=0.01",        "optimizer.schedule=constant",
                            "optimizer.learning_rate=1e-3", "checkpoint.every=0",
                            "mesh.bucket_bytes=20000"};
    const auto more = [&](Overrides extra) {
      extra.insert(extra.end(), kind.begin(), kind.end());
      return extra;
    };
    const std::string one = fmt::format("one{}", stage);
    run(0, one, kind);
    struct Case {
      int ranks;
      bool zero;
    };
    std::vector<Case> cases = {{2, true}};
    if (stage == 1) cases.push_back({4, false});
    if (testing::is_long()) cases = {{2, true}, {2, false}, {4, true}, {4, false}};
    for (const auto& [ranks, zero] : cases) {
      const std::string name = fmt::format("ranks{}-{}-{}", ranks, stage, zero ? "zero" : "plain");
      run(ranks, name, more({fmt::format("mesh.zero={}", zero)}));
      expect_close(name, one);
    }
  }
}

TEST_F(TrainRanks, FollowOneRankInAllElse) {
  // Packs, two resolutions, whole pages and words, diagnostics of streams, loss-free balancing.
  const Overrides packed = {"steps=6",
                            "data.pack_tokens=64",
                            "view.resolutions=[16, 32]",
                            "data.level=mixed",
                            "data.word_share=0.7",
                            "data.page_share=0.3",
                            "batch.micro_batch=1",
                            "moe.bias_balancing_rate=0.01"};
  const Overrides streams = {"steps=6", "model.residual=mhc", "log.diagnostics_every=2",
                             "recompute=true"};
  const Overrides read = {"steps=4", "evaluation.samples=5", "evaluation.every=2",
                          "evaluation.max_new_tokens=4",
                          fmt::format("data.validation=\"{}\"", data_.shards().string())};
  const std::vector<std::pair<std::string, Overrides>> kinds = {
      {"packed", packed}, {"streams", streams}, {"read", read}};
  for (const auto& [name, kind] : kinds) {
    run(0, name + "-one", kind);
    run(2, name + "-two", kind);
    expect_close(name + "-two", name + "-one", name == "read" ? 1e-4 : 1e-5);
    if (testing::is_long()) {
      run(4, name + "-four", kind);
      expect_close(name + "-four", name + "-one", name == "read" ? 1e-4 : 1e-5);
    }
  }
}

TEST_F(TrainRanks, RepeatedRunsHaveTheSameBits) {
  for (const char* name : {"a", "b"}) run(2, name, {"steps=6", "checkpoint.every=3"});
  EXPECT_EQ(metrics_text("a"), metrics_text("b"));
  expect_same_tensors("a", "b", 6);
  // With ZeRO or without: the same sums, the same updates.
  run(2, "plain", {"steps=6", "mesh.zero=false"});
  EXPECT_EQ(metrics_text("plain"), metrics_text("a"));
  EXPECT_EQ(first_difference(tensors_of(checkpoint("plain", 6)), tensors_of(checkpoint("a", 6))),
            "");
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(checkpoint("a", 6)))
    names.insert(entry.path().filename().string());
  EXPECT_EQ(names,
            (std::set<std::string>{
                "COMPLETE", "config.json", "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors", "model.safetensors.index.json",
                "optimizer-00001-of-00002.safetensors", "optimizer-00002-of-00002.safetensors",
                "optimizer.safetensors.index.json", "state.json", "tokenizer.json"}));
}

TEST_F(TrainRanks, GoOnWithAnotherNumberOfRanks) {
  const Overrides kind = {"optimizer.schedule=constant", "moe.bias_balancing_rate=0.01"};
  const auto until = [&](int steps, bool zero) {
    Overrides out = kind;
    out.push_back(fmt::format("steps={}", steps));
    out.push_back(fmt::format("mesh.zero={}", zero));
    return out;
  };
  run(0, "one", until(8, true));
  // One rank, then two with ZeRO, then four without, then two with, then one.
  run(0, "parts", until(2, true));
  run(2, "parts", until(4, true), true);
  run(4, "parts", until(5, false), true);
  run(2, "parts", until(7, true), true);
  run(0, "parts", until(8, true), true);
  const auto a = read_metrics(folder("parts") / "metrics.jsonl");
  const auto b = read_metrics(folder("one") / "metrics.jsonl");
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    for (const char* field : {"loss", "grad_norm"})
      EXPECT_NEAR(a[i][field].get<double>(), b[i][field].get<double>(),
                  1e-5 * b[i][field].get<double>())
          << i << " " << field;
}

/// Meshes: pipeline stages, chunks of each, expert-parallel ranks.
struct MeshCase {
  int ranks, pp, chunks, ep;
  bool zero;
  Overrides overrides() const {
    return {fmt::format("mesh.pp={}", pp), fmt::format("mesh.chunks={}", chunks),
            fmt::format("mesh.ep={}", ep), fmt::format("mesh.zero={}", zero)};
  }
  std::string name() const {
    return fmt::format("ranks{}-pp{}x{}-ep{}-{}", ranks, pp, chunks, ep, zero ? "zero" : "whole");
  }
};

std::vector<MeshCase> mesh_cases() {
  if (!testing::is_long()) return {{2, 2, 1, 1, true}, {2, 1, 1, 2, true}, {4, 2, 2, 2, false}};
  std::vector<MeshCase> out;
  for (const int ranks : {2, 4, 8})
    for (const int pp : {1, 2, 4})
      for (const int ep : {1, 2})
        for (const bool zero : {true, false}) {
          if (ranks % (pp * ep) != 0 || ranks / pp > 4) continue;
          out.push_back({ranks, pp, 1, ep, zero});
          if (pp == 2 && ranks / pp <= 2) out.push_back({ranks, pp, 2, ep, zero});
        }
  return out;
}

TEST_F(TrainRanks, EveryMeshFollowsOneRank) {
  for (const char* residual : {"plain", "mhc"})
    for (int stage = 1; stage <= 3; ++stage) {
      if (!testing::is_long() && std::string(residual) == "mhc" && stage != 1) continue;
      const Overrides kind = {fmt::format("stage={}", stage),
                              "steps=20",
                              "moe.balance_loss=0.01",
                              "optimizer.schedule=constant",
                              "optimizer.learning_rate=1e-3",
                              "checkpoint.every=0",
                              "log.diagnostics_every=0",  // gains are of whole stacks
                              fmt::format("model.residual={}", residual)};
      const std::string one = fmt::format("one-{}-{}", residual, stage);
      run(0, one, kind);
      for (const MeshCase& mesh : mesh_cases()) {
        const std::string name = fmt::format("{}-{}-{}", mesh.name(), residual, stage);
        Overrides all = mesh.overrides();
        all.insert(all.end(), kind.begin(), kind.end());
        run(mesh.ranks, name, all);
        expect_close(name, one);
      }
    }
}

TEST_F(TrainRanks, GoOnOnAnotherMesh) {
  const auto until = [](int steps, const Overrides& mesh) {
    Overrides out = {"optimizer.schedule=constant", fmt::format("steps={}", steps)};
    out.insert(out.end(), mesh.begin(), mesh.end());
    return out;
  };
  run(0, "one", until(8, {}));
  run(2, "parts", until(2, {"mesh.pp=2"}));
  run(2, "parts", until(4, {"mesh.ep=2"}), true);
  run(4, "parts", until(6, {"mesh.pp=2", "mesh.ep=2", "mesh.zero=false"}), true);
  run(0, "parts", until(8, {}), true);
  const auto a = read_metrics(folder("parts") / "metrics.jsonl");
  const auto b = read_metrics(folder("one") / "metrics.jsonl");
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    for (const char* field : {"loss", "grad_norm"})
      EXPECT_NEAR(a[i][field].get<double>(), b[i][field].get<double>(),
                  1e-5 * b[i][field].get<double>())
          << i << " " << field;
}

TEST_F(TrainRanks, APipelineDrawsItsLastStep) {
  run(2, "drawn", {"steps=2", "mesh.pp=2"});
  const std::string svg = read_file(folder("drawn") / "pipeline.svg");
  // Four micro-batches, forward and backward, on two stages.
  const auto count = [&](const std::string& part) {
    std::size_t found = 0;
    for (std::size_t at = svg.find(part); at != std::string::npos; at = svg.find(part, at + 1))
      ++found;
    return found;
  };
  EXPECT_EQ(count("#8fb8de"), 8u);
  EXPECT_EQ(count("#8fce9b"), 8u);
  EXPECT_NE(svg.find("stage 1</text>"), std::string::npos);
}

TEST_F(TrainRanks, APlacementThatDoesNotFitIsRefused) {
  const auto refused = [&](int ranks, const Overrides& overrides) {
    RanksChild child(ranks, arguments("run", overrides));
    EXPECT_NE(child.wait(), 0);
    return child.errors();
  };
  EXPECT_NE(refused(2, {"mesh.pp=2", "mesh.split=[3]"}).find("mesh.split must be 2 rising numbers"),
            std::string::npos);
  EXPECT_NE(refused(2, {"mesh.pp=2", "moe.bias_balancing_rate=0.1"})
                .find("moe.bias_balancing_rate must be 0 with mesh.pp above 1"),
            std::string::npos);
  EXPECT_NE(refused(1, {"mesh.chunks=2"}).find("mesh.chunks must be 1 without a pipeline"),
            std::string::npos);
}

/// Starts a run and returns once it has made `steps` steps.
std::unique_ptr<RanksChild> started(int ranks, const std::vector<std::string>& arguments,
                                    const std::filesystem::path& metrics, std::int64_t steps) {
  auto child = std::make_unique<RanksChild>(ranks, arguments);
  EXPECT_TRUE(testing::wait_until(*child, [&] { return testing::line_count(metrics) >= steps; }))
      << child->errors();
  return child;
}

/// Waits for the end of a job that has met a fault: not 0, within seconds, and nobody left.
void expect_job_ended(RanksChild& child, const std::map<int, pid_t>& ranks) {
  const auto start = std::chrono::steady_clock::now();
  EXPECT_NE(child.wait(), 0);
  // mpirun may be gone a moment before the last of those that it has killed.
  const auto anyone = [&] {
    return std::any_of(ranks.begin(), ranks.end(),
                       [](const auto& rank) { return lives(rank.second); });
  };
  while (anyone() && std::chrono::steady_clock::now() - start < std::chrono::seconds(30))
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
  for (const auto& [rank, process] : ranks) EXPECT_FALSE(lives(process)) << "rank " << rank;
}

TEST_F(TrainRanks, ASignalToOneRankSavesAndStopsAll) {
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

/// Kills one rank when `when` says so, again and again, then lets the run end.
void kill_again_and_again(const TinyData& data, const std::vector<std::string>& arguments,
                          int ranks, const std::function<bool()>& when, int times,
                          std::mt19937& random) {
  auto words = arguments;
  for (int i = 0; i < times; ++i) {
    RanksChild child(ranks, words);
    testing::wait_until(child, when);
    const auto processes = child.rank_processes();
    if (!processes.empty()) {
      auto victim = processes.begin();
      std::advance(victim, random() % processes.size());
      ::kill(victim->second, SIGKILL);
      expect_job_ended(child, processes);
    }
    child.wait();
    if (words.back() != "--resume") words.emplace_back("--resume");
  }
  RanksChild last(ranks, words);
  EXPECT_EQ(last.wait(), 0) << last.errors();
  for (const auto& entry : std::filesystem::directory_iterator(data.folder() / "run/checkpoints"))
    EXPECT_FALSE(entry.path().filename().string().starts_with(".tmp-")) << entry.path();
}

TEST_F(TrainRanks, AKilledRankEndsTheJobWhichGoesOnAsIfNothingHadBeen) {
  const bool is_long = testing::is_long();
  const Overrides kind = {fmt::format("steps={}", is_long ? 400 : 60), "checkpoint.every=7"};
  run(2, "whole", kind);
  std::mt19937 random(7);
  std::int64_t next = 0;
  kill_again_and_again(
      data_, arguments("run", kind), 2,
      [&, last = std::int64_t{-1}]() mutable {
        const auto lines = testing::line_count(folder("run") / "metrics.jsonl");
        if (last < 0) next = lines + 3 + static_cast<std::int64_t>(random() % 12);
        last = lines;
        if (lines < next) return false;
        last = -1;
        return true;
      },
      is_long ? 20 : 2, random);
  EXPECT_EQ(metrics_text("run"), metrics_text("whole"));
  expect_same_tensors("run", "whole", is_long ? 400 : 60);
}

TEST_F(TrainRanks, ARankKilledInTheMiddleOfACheckpoint) {
  const bool is_long = testing::is_long();
  const Overrides kind = {fmt::format("steps={}", is_long ? 120 : 16), "checkpoint.every=2"};
  run(2, "whole", kind);
  std::mt19937 random(11);
  kill_again_and_again(
      data_, arguments("run", kind), 2,
      [&] {
        const auto checkpoints = folder("run") / "checkpoints";
        std::error_code error;
        for (std::filesystem::directory_iterator each(checkpoints, error), end;
             !error && each != end; each.increment(error))
          if (each->path().filename().string().starts_with(".tmp-step")) return true;
        return false;
      },
      is_long ? 20 : 2, random);
  EXPECT_EQ(metrics_text("run"), metrics_text("whole"));
  expect_same_tensors("run", "whole", is_long ? 120 : 16);
}

TEST_F(TrainRanks, AKilledRankIsToldWithHostAndStep) {
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

TEST_F(TrainRanks, AHungRankEndsTheJobAfterTheLimit) {
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

TEST_F(TrainRanks, ANumberThatIsNotFiniteEndsTheJob) {
  run(0, "good", {"steps=1"});
  const auto folder_of_weights = checkpoint("good", 1);
  Ocr2Model model(read_ocr2_config(folder_of_weights / "config.json"), 0);
  load_weights(model.store(), folder_of_weights);
  for (const auto& [name, weight] : model.store().state())
    if (name == "model.layers.1.self_attn.q_proj.weight")
      weight.data<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  save_model(model, folder_of_weights);
  RanksChild child(2,
                   arguments("bad", {fmt::format("model.init=\"{}\"", folder("good").string())}));
  expect_job_ended(child, child.rank_processes());
  const std::string errors = child.errors();
  for (const char* part : {"lectern: rank 0 of 2 on ", ", step 1: ", "the gradient of model.",
                           "is not finite", "no parameter was updated"})
    EXPECT_NE(errors.find(part), std::string::npos) << part << " in " << errors;
}

TEST_F(TrainRanks, AMeshThatDoesNotFitIsRefusedOnce) {
  RanksChild child(3, arguments("run", {"mesh.pp=2"}));
  EXPECT_NE(child.wait(), 0);
  EXPECT_NE(child.errors().find("mesh.pp must divide the number of ranks = 3, got 2"),
            std::string::npos)
      << child.errors();
  RanksChild uneven(3, arguments("run", {}));
  EXPECT_NE(uneven.wait(), 0);
  EXPECT_NE(uneven.errors().find("batch.global_size must be a multiple"), std::string::npos)
      << uneven.errors();
  EXPECT_FALSE(std::filesystem::exists(folder("run") / "metrics.jsonl"));
}

}  // namespace
}  // namespace lectern
