// Runs of the tiny recipe on several ranks, for tests of the whole program.
#pragma once

#include "recipes/checkpoint/folder.h"
#include "recipes/log/metrics.h"
#include "recipes/train/trainer.h"
#include "tests/distributed/mpirun.h"
#include "tests/recipes/tiny_run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace lectern::testing {

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
        if (field.ends_with("stream_deviation")) {
          // How far sums of four numbers are from 1: it is as exact as such sums in f32, which
          // one step of 1 (1.19e-7) an addend can be apart.
          EXPECT_NEAR(x, y, 4 * std::numeric_limits<float>::epsilon())
              << got << ", record " << i + 1 << ": " << field;
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

/// Starts a run and returns once it has made `steps` steps.
inline std::unique_ptr<RanksChild> started(int ranks, const std::vector<std::string>& arguments,
                                           const std::filesystem::path& metrics,
                                           std::int64_t steps) {
  auto child = std::make_unique<RanksChild>(ranks, arguments);
  EXPECT_TRUE(wait_until(*child, [&] { return line_count(metrics) >= steps; })) << child->errors();
  return child;
}

/// Waits for the end of a job that has met a fault: not 0, within seconds, and nobody left.
inline void expect_job_ended(RanksChild& child, const std::map<int, pid_t>& ranks) {
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

}  // namespace lectern::testing
