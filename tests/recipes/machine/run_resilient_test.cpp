// scripts/run-resilient.sh around the real program, killed from outside again and again.
#include "recipes/checkpoint/folder.h"
#include "tests/recipes/spawn.h"
#include "tests/recipes/tiny_run.h"

#include <cstdlib>
#include <memory>
#include <sstream>

namespace lectern {
namespace {

using testing::Child;
using testing::first_difference;
using testing::tensors_of;
using testing::TinyData;

/// Notes its arguments, a line a start. The first `kills` starts are killed once the run has
/// written four more records; later ones are left alone. $1 kills, $2 notes, $3 metrics.jsonl, then
/// the command.
constexpr const char* kFlaky = R"sh(#!/bin/sh
kills=$1 notes=$2 metrics=$3
shift 3
echo "$@" >> "$notes"
[ "$(wc -l < "$notes")" -gt "$kills" ] && exec "$@"
lines() { cat "$metrics" 2>/dev/null | wc -l; }
before=$(lines)
"$@" &
child=$!
while kill -0 $child 2>/dev/null && [ "$(lines)" -lt $((before + 4)) ]; do sleep 0.01; done
kill -9 $child
wait $child
exit $?
)sh";

class RunResilient : public ::testing::Test {
 protected:
  /// run-resilient.sh with `times` restarts around a training that is killed `kills` times.
  std::unique_ptr<Child> started(int times, int kills, const std::string& run,
                                 const std::vector<std::string>& more = {}) {
    const auto flaky = data_.folder() / "flaky.sh";
    write_file(flaky, kFlaky);
    std::vector<std::string> arguments = {"train", data_.recipe_file(run).string()};
    for (const char* text : {"steps=30", "checkpoint.every=3"})
      arguments.insert(arguments.end(), {"--set", text});
    arguments.insert(arguments.end(), more.begin(), more.end());
    const char* source = std::getenv("LECTERN_SOURCE");
    const auto script =
        std::filesystem::path(source != nullptr ? source : ".") / "scripts" / "run-resilient.sh";
    return std::make_unique<Child>(
        arguments, "",
        std::vector<std::string>{script.string(), std::to_string(times), "sh", flaky.string(),
                                 std::to_string(kills), notes().string(), metrics(run).string()});
  }
  std::filesystem::path notes() const { return data_.folder() / "notes"; }
  std::filesystem::path metrics(const std::string& run) const {
    return data_.folder() / run / "metrics.jsonl";
  }
  /// A line of arguments for each start.
  std::vector<std::string> starts() const {
    std::vector<std::string> out;
    std::istringstream text(read_file(notes()));
    for (std::string line; std::getline(text, line);) out.push_back(line);
    return out;
  }

  TinyData data_;
};

TEST_F(RunResilient, AKilledRunEndsAsIfNothingHadBeen) {
  auto whole = started(0, 0, "whole");
  ASSERT_EQ(whole->wait(), 0) << whole->errors();
  std::filesystem::remove(notes());
  auto child = started(3, 2, "run");
  EXPECT_EQ(child->wait(), 0) << child->errors();
  const auto all = starts();
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].find("--resume"), std::string::npos);
  for (int i : {1, 2}) {
    const auto first = all[static_cast<std::size_t>(i)].find("--resume");
    EXPECT_NE(first, std::string::npos);
    EXPECT_EQ(all[static_cast<std::size_t>(i)].find("--resume", first + 1), std::string::npos);
  }
  EXPECT_NE(child->errors().find("run-resilient: exit status 137; restart 1 of 3"),
            std::string::npos)
      << child->errors();
  EXPECT_NE(child->errors().find("restart 2 of 3"), std::string::npos);
  EXPECT_EQ(read_file(metrics("run")), read_file(metrics("whole")));
  for (const char* stem : {"model", "optimizer"})
    EXPECT_EQ(first_difference(
                  tensors_of(data_.folder() / "run/checkpoints" / checkpoint_name(30), stem),
                  tensors_of(data_.folder() / "whole/checkpoints" / checkpoint_name(30), stem)),
              "");
}

TEST_F(RunResilient, GivesUpAfterTooManyFaultsWithTheStatusOfTheLast) {
  auto child = started(2, 100, "run");
  EXPECT_EQ(child->wait(), 137);
  EXPECT_EQ(starts().size(), 3u);
  EXPECT_NE(child->errors().find("run-resilient: exit status 137 after 2 restarts; given up"),
            std::string::npos)
      << child->errors();
}

TEST_F(RunResilient, BadUsageIsNotTriedAgain) {
  auto child = started(5, 0, "run", {"--no-such-option"});
  EXPECT_EQ(child->wait(), 2);
  EXPECT_EQ(starts().size(), 1u);
  EXPECT_NE(child->errors().find("after 0 restarts; given up"), std::string::npos);
}

TEST_F(RunResilient, ASignalSavesAndStartsNothingAgain) {
  auto child = started(5, 0, "run", {"--set", "steps=100000", "--set", "checkpoint.every=0"});
  ASSERT_TRUE(
      testing::wait_until(*child, [&] { return testing::line_count(metrics("run")) >= 3; }));
  child->send(SIGTERM);
  EXPECT_EQ(child->wait(), 1);
  EXPECT_EQ(starts().size(), 1u);
  EXPECT_NE(child->errors().find("run-resilient: stopped by SIGTERM; go on with --resume"),
            std::string::npos)
      << child->errors();
  EXPECT_TRUE(newest_complete(data_.folder() / "run" / "checkpoints"));
}

TEST_F(RunResilient, SaysHowItIsUsed) {
  const char* source = std::getenv("LECTERN_SOURCE");
  const auto script =
      (std::filesystem::path(source != nullptr ? source : ".") / "scripts/run-resilient.sh")
          .string();
  Child child({}, "", {script, "many"});  // the program is the command, "many" is no number
  EXPECT_EQ(child.wait(), 2);
  EXPECT_NE(child.errors().find("usage: scripts/run-resilient.sh TIMES COMMAND..."),
            std::string::npos);
}

}  // namespace
}  // namespace lectern
