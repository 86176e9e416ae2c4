// Runs that are killed again and again, at random steps and while a checkpoint is being written, on
// one rank and on two, with an encoder that trains and with a frozen one whose output is cached:
// they end with the bits of a run that nobody disturbed. LECTERN_KILLS: kills of each run, 2 unless
// set, 20 in the long form; scripts/kill-runs.sh.
#include "tests/distributed/train_ranks.h"

#include <chrono>
#include <cstdlib>
#include <functional>
#include <iterator>
#include <random>
#include <tuple>

namespace lectern {
namespace {

using testing::Child;
using testing::expect_job_ended;
using testing::Overrides;
using testing::RanksChild;

int kill_count() {
  if (const char* text = std::getenv("LECTERN_KILLS")) return std::max(1, std::atoi(text));
  return testing::is_long() ? 20 : 2;
}

enum class Moment { any_step, within_checkpoint };

/// (ranks, whether the encoder is frozen and cached, when)
class TrainKills : public testing::TrainRanks,
                   public ::testing::WithParamInterface<std::tuple<int, bool, Moment>> {
 protected:
  int rank_count() const { return std::get<0>(GetParam()); }
  bool is_cached() const { return std::get<1>(GetParam()); }
  Moment moment() const { return std::get<2>(GetParam()); }

  /// Enough steps for all kills: each loses at most those since the last checkpoint.
  std::int64_t steps() const {
    return moment() == Moment::any_step ? 30 + 14 * kill_count() : 12 + 6 * kill_count();
  }
  Overrides settings() const {
    Overrides out = {fmt::format("steps={}", steps()),
                     moment() == Moment::any_step ? "checkpoint.every=7" : "checkpoint.every=2"};
    if (is_cached())
      out.insert(out.end(),
                 {"stage=3", "data.level=page", "view.crop=true", "optimizer.learning_rate=1e-3"});
    return out;
  }

  /// The program on one rank as users start it, on more under mpirun.
  std::unique_ptr<Child> start(const std::vector<std::string>& words) const {
    if (rank_count() == 1) return std::make_unique<Child>(words);
    return std::make_unique<RanksChild>(rank_count(), words);
  }
  std::map<int, pid_t> processes_of(const Child& child) const {
    if (rank_count() == 1) return {{0, child.process()}};
    return dynamic_cast<const RanksChild&>(child).rank_processes();
  }
  void finish(const std::vector<std::string>& words) const {
    const auto child = start(words);
    EXPECT_EQ(child->wait(), 0) << child->errors();
  }

  bool is_writing_checkpoint() const {
    std::error_code error;
    for (std::filesystem::directory_iterator each(folder("run") / "checkpoints", error), end;
         !error && each != end; each.increment(error))
      if (each->path().filename().string().starts_with(".tmp-step")) return true;
    return false;
  }

  /// Waits for the moment, and on a little.
  void wait_for_moment(Child& child) {
    const auto lines = [&] { return testing::line_count(folder("run") / "metrics.jsonl"); };
    if (moment() == Moment::any_step) {
      const std::int64_t target = lines() + 1 + static_cast<std::int64_t>(random_() % 12);
      // What is after the newest checkpoint is dropped first, then counted again.
      std::int64_t last = lines();
      std::int64_t more = target - last;
      testing::wait_until(child, [&] {
        const std::int64_t now = lines();
        if (now > last) more -= now - last;
        last = now;
        return more <= 0;
      });
    } else {
      // What the kill before left unfinished goes when the run begins.
      bool has_begun = false;
      testing::wait_until(child, [&] {
        const bool is_writing = is_writing_checkpoint();
        has_begun = has_begun || !is_writing;
        return has_begun && is_writing;
      });
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random_() % 8000));
  }

  /// Kills one process of a run, and says whether there was one to kill.
  bool kill_once(const std::vector<std::string>& words) {
    const auto child = start(words);
    wait_for_moment(*child);
    const auto processes = processes_of(*child);
    if (processes.empty() || !child->running()) return false;
    auto victim = processes.begin();
    std::advance(victim, random_() % processes.size());
    ::kill(victim->second, SIGKILL);
    if (rank_count() > 1)
      expect_job_ended(dynamic_cast<RanksChild&>(*child), processes);
    else
      EXPECT_EQ(child->wait(), -SIGKILL) << child->errors();
    return true;
  }

  std::mt19937 random_{7};
};

TEST_P(TrainKills, EndAsIfNothingHadBeen) {
  finish(arguments("whole", settings()));
  auto words = arguments("run", settings());
  int kills = 0, in_checkpoint = 0;
  for (int i = 0; i < kill_count(); ++i) {
    kills += kill_once(words) ? 1 : 0;
    in_checkpoint += is_writing_checkpoint() ? 1 : 0;
    if (words.back() != "--resume") words.emplace_back("--resume");
  }
  finish(words);
  EXPECT_EQ(kills, kill_count()) << "the run ended before";
  fmt::print("{} kills, {} of them left a checkpoint unfinished\n", kills, in_checkpoint);
  for (const auto& entry : std::filesystem::directory_iterator(folder("run") / "checkpoints"))
    EXPECT_FALSE(entry.path().filename().string().starts_with(".tmp-")) << entry.path();
  EXPECT_EQ(std::filesystem::exists(folder("run") / "encoder-cache" / "index.txt"), is_cached());
  EXPECT_EQ(testing::line_count(folder("run") / "metrics.jsonl"), steps());
  EXPECT_EQ(metrics_text("run"), metrics_text("whole"));
  expect_same_tensors("run", "whole", steps());
}

std::string name_of(const ::testing::TestParamInfo<TrainKills::ParamType>& info) {
  const auto& [ranks, is_cached, moment] = info.param;
  return fmt::format("{}{}{}", ranks == 1 ? "OneRank" : "TwoRanks",
                     is_cached ? "CachedEncoder" : "",
                     moment == Moment::any_step ? "AnyStep" : "WithinACheckpoint");
}

INSTANTIATE_TEST_SUITE_P(Moments, TrainKills,
                         ::testing::Combine(::testing::Values(1, 2), ::testing::Bool(),
                                            ::testing::Values(Moment::any_step,
                                                              Moment::within_checkpoint)),
                         name_of);

}  // namespace
}  // namespace lectern
