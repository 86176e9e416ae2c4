#include "recipes/checkpoint/folder.h"

#include "core/error.h"
#include "core/io/file.h"
#include "core/random.h"
#include "recipes/machine/interrupt.h"
#include "tests/testing.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <thread>

namespace lectern {
namespace {

namespace fs = std::filesystem;
using testing::throws_with;

/// Content that tells its step, so that a mixture of two checkpoints is seen.
std::string content(std::int64_t step, std::string_view name, std::size_t size = 20000) {
  std::string out;
  while (out.size() < size) out += fmt::format("{} of step {}\n", name, step);
  return out;
}

void fill(const CheckpointWriter& writer, std::int64_t step) {
  for (const char* name : {"config.json", "model-00001.safetensors", "state.json"})
    writer.add(name, content(step, name));
}

fs::path save(const fs::path& folder, std::int64_t step, std::int64_t keep = 2) {
  CheckpointWriter writer(folder, step);
  fill(writer, step);
  return writer.commit(keep);
}

/// Empty when `path` is the whole checkpoint of `step`.
std::string damage(const fs::path& path, std::int64_t step) {
  for (const char* name : {"config.json", "model-00001.safetensors", "state.json"})
    if (!fs::exists(path / name) || read_file(path / name) != content(step, name))
      return (path / name).string();
  return "";
}

std::vector<std::string> names(const fs::path& folder) {
  std::vector<std::string> out;
  for (const auto& entry : fs::directory_iterator(folder))
    out.push_back(entry.path().filename().string());
  std::sort(out.begin(), out.end());
  return out;
}

TEST(CheckpointFolder, WritesPrunesAndFindsTheNewest) {
  testing::TemporaryFolder folder;
  EXPECT_FALSE(newest_complete(folder.path() / "none"));
  for (const std::int64_t step : {5, 10, 1234567}) save(folder.path(), step);
  EXPECT_EQ(names(folder.path()), (std::vector<std::string>{"step-000010", "step-1234567"}));
  const auto newest = newest_complete(folder.path());
  ASSERT_TRUE(newest);
  EXPECT_EQ(newest->step, 1234567);
  EXPECT_EQ(damage(newest->path, 1234567), "");
}

TEST(CheckpointFolder, CompleteListsEveryFileWithItsSize) {
  testing::TemporaryFolder folder;
  CheckpointWriter writer(folder.path(), 3);
  writer.add("b.json", "12345");
  fs::create_directory(writer.path("sub folder"));
  write_file(writer.path("sub folder") / "a b", "1");
  const fs::path path = writer.commit(1);
  EXPECT_EQ(path, folder.path() / "step-000003");
  EXPECT_EQ(read_file(path / "COMPLETE"), "crc32\n1 83dcefb7 sub folder/a b\n5 cbf53a1c b.json\n");
  EXPECT_TRUE(is_complete(path));
  write_file(path / "COMPLETE", "1 sub folder/a b\n5 b.json\n");  // of an older version
  EXPECT_TRUE(is_complete(path));
  EXPECT_EQ(find_damage(path, CheckedFiles::all), "");
  for (const char* bad : {"crc32\n5 b.json\n", "crc32\n5 cbf53a1 b.json\n", "crc32\n5 cbf53a1c\n",
                          "crc32\n5 cbf53a1c \n", "crc32\n6 cbf53a1c b.json\n"}) {
    write_file(path / "COMPLETE", bad);
    EXPECT_FALSE(is_complete(path)) << bad;
  }
}

TEST(CheckpointFolder, DamageIsFoundAndSetAside) {
  testing::TemporaryFolder folder;
  const fs::path path = save(folder.path(), 1);
  EXPECT_EQ(find_damage(path, CheckedFiles::all), "");
  std::string bytes = read_file(path / "model-00001.safetensors");
  bytes[100] ^= 1;
  write_file(path / "model-00001.safetensors", bytes);
  EXPECT_TRUE(is_complete(path));  // sizes are right
  const std::string damage = find_damage(path, CheckedFiles::all);
  EXPECT_TRUE(
      damage.starts_with((path / "model-00001.safetensors").string() + ": must have checksum "))
      << damage;
  // Shares of the files, one of which has it.
  int found = 0;
  for (int share = 0; share < 3; ++share)
    found += find_damage(path, CheckedFiles::all, share, 3).empty() ? 0 : 1;
  EXPECT_EQ(found, 1);
  EXPECT_EQ(set_aside(path), folder.path() / "damaged-step-000001");
  EXPECT_FALSE(newest_complete(folder.path()));
  EXPECT_EQ(set_aside(save(folder.path(), 1)), folder.path() / "damaged-step-000001-2");
}

TEST(CheckpointFolder, DamageOfTheOptimizerIsNoneOfTheModel) {
  testing::TemporaryFolder folder;
  CheckpointWriter writer(folder.path(), 3);
  writer.add("optimizer.safetensors", "12345");
  writer.set_checksum("optimizer.safetensors", 7);  // of something else
  const fs::path path = writer.commit(1);
  EXPECT_EQ(find_damage(path, CheckedFiles::model), "");
  EXPECT_NE(find_damage(path, CheckedFiles::all), "");
}

TEST(CheckpointFolder, Names) {
  EXPECT_EQ(checkpoint_name(120), "step-000120");
  EXPECT_EQ(checkpoint_step("step-000120"), 120);
  EXPECT_EQ(checkpoint_step("step-1234567"), 1234567);
  for (const char* bad : {"step-12", "step-00012x", "step--00001", ".tmp-step-000120", "x", "",
                          "step-99999999999999999999"})
    EXPECT_FALSE(checkpoint_step(bad)) << bad;
}

TEST(CheckpointFolder, IncompleteOnesAreIgnored) {
  testing::TemporaryFolder folder;
  save(folder.path(), 1);
  fs::create_directories(folder.path() / "step-000002");  // no COMPLETE
  write_file(save(folder.path(), 3, 9) / "state.json", "cut");
  EXPECT_EQ(newest_complete(folder.path())->step, 1);
  fs::remove(save(folder.path(), 4, 9) / "config.json");
  EXPECT_EQ(newest_complete(folder.path())->step, 1);
  write_file(save(folder.path(), 5, 9) / "COMPLETE", "garbage\n");
  EXPECT_EQ(newest_complete(folder.path())->step, 1);
  write_file(folder.path() / "step-000002" / "COMPLETE", "");  // another writer's marker
  EXPECT_EQ(newest_complete(folder.path())->step, 2);
}

TEST(CheckpointFolder, PruningNeverTakesTheNewest) {
  testing::TemporaryFolder folder;
  save(folder.path(), 9);
  save(folder.path(), 4, 1);  // a restart from an older checkpoint: 9 is still the newest
  EXPECT_EQ(newest_complete(folder.path())->step, 9);
  prune(folder.path(), 0);
  EXPECT_EQ(newest_complete(folder.path())->step, 9);
  EXPECT_EQ(names(folder.path()).size(), 1u);
}

TEST(CheckpointFolder, SameStepIsReplaced) {
  testing::TemporaryFolder folder;
  save(folder.path(), 7);
  CheckpointWriter writer(folder.path(), 7);
  writer.add("only.json", "new");
  writer.commit(2);
  EXPECT_EQ(names(folder.path()), std::vector<std::string>{"step-000007"});
  EXPECT_EQ(names(folder.path() / "step-000007"),
            (std::vector<std::string>{"COMPLETE", "only.json"}));
}

TEST(CheckpointFolder, ResolvesWhatUsersGive) {
  testing::TemporaryFolder folder;
  const auto run = folder.path() / "run";
  const auto saved = save(run / "checkpoints", 8);
  EXPECT_EQ(resolve_checkpoint(saved), saved);
  EXPECT_EQ(resolve_checkpoint(run / "checkpoints"), saved);
  EXPECT_EQ(resolve_checkpoint(run), saved);
  EXPECT_TRUE(
      throws_with([&] { resolve_checkpoint(folder.path() / "no"); }, {"got nothing there"}));
  EXPECT_TRUE(throws_with([&] { resolve_checkpoint(folder.path()); }, {"got neither"}));
}

TEST(CheckpointFolder, FailureAtAnyPointLeavesThePreviousOne) {
  for (const char* where : {"sync", "mark", "rename"}) {
    testing::TemporaryFolder folder;
    save(folder.path(), 1);
    {
      CheckpointWriter writer(folder.path(), 2);
      fill(writer, 2);
      writer.at_point = [&](std::string_view point) {
        if (point == where) throw IoError("injected");
      };
      EXPECT_THROW(writer.commit(2), IoError);
    }
    EXPECT_EQ(names(folder.path()), std::vector<std::string>{"step-000001"}) << where;
    EXPECT_EQ(damage(newest_complete(folder.path())->path, 1), "");
  }
}

TEST(CheckpointFolder, DeathAtAnyPointLeavesAWholeOne) {
  for (const char* where : {"sync", "mark", "rename", "prune"}) {
    testing::TemporaryFolder folder;
    save(folder.path(), 1);
    const pid_t child = fork();
    if (child == 0) {
      CheckpointWriter writer(folder.path(), 2);
      fill(writer, 2);
      writer.at_point = [&](std::string_view point) {
        if (point == where) raise(SIGKILL);
      };
      writer.commit(1);
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    const auto newest = newest_complete(folder.path());
    ASSERT_TRUE(newest) << where;
    EXPECT_EQ(newest->step, where == std::string_view("prune") ? 2 : 1);
    EXPECT_EQ(damage(newest->path, newest->step), "") << where;
    remove_stale(folder.path());
    for (const std::string& name : names(folder.path())) EXPECT_TRUE(checkpoint_step(name)) << name;
  }
}

// Each round a child writes checkpoints in a loop, some of them replacing one of the same step,
// until it is killed at a random moment.
TEST(CheckpointFolder, KilledAtRandomMoments) {
  testing::TemporaryFolder folder;
  Random random(11, "kill");
  std::int64_t step = 1;
  const auto start = std::chrono::steady_clock::now();
  save(folder.path(), step);
  // Kills fall within the time of three checkpoints, however fast the disk is.
  const auto window = 3 * std::chrono::duration_cast<std::chrono::microseconds>(
                              std::chrono::steady_clock::now() - start);
  constexpr int kRounds = 25;
  for (int round = 0; round < kRounds; ++round) {
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
      remove_stale(folder.path());
      [[maybe_unused]] ssize_t ignored = write(ready[1], "x", 1);
      for (std::int64_t next = step;; ++next) {
        CheckpointWriter writer(folder.path(), next);
        fill(writer, next);
        writer.commit(2);
      }
    }
    char byte;
    ASSERT_EQ(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    std::this_thread::sleep_for(window * random.uniform());
    // Where every round fell short (a busy machine), the last one lets the child get on.
    if (round + 1 == kRounds)
      while (step == 1 && complete_checkpoints(folder.path()).back().step == 1)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    const auto all = complete_checkpoints(folder.path());
    ASSERT_FALSE(all.empty()) << round;
    for (const auto& each : all) ASSERT_EQ(damage(each.path, each.step), "") << round;
    ASSERT_GE(all.back().step, step) << "an older checkpoint came back in round " << round;
    step = all.back().step;
  }
  EXPECT_GT(step, 1);
}

TEST(CheckpointFolder, FullDiskNamesTheFileAndLeavesNothing) {
  testing::TemporaryFolder folder;
  save(folder.path(), 1);
  int report[2];
  ASSERT_EQ(pipe(report), 0);
  const pid_t child = fork();
  if (child == 0) {
    install_signal_handlers();  // SIGXFSZ would end the process
    rlimit limit{10000, 10000};
    setrlimit(RLIMIT_FSIZE, &limit);
    std::string message = "no error";
    try {
      CheckpointWriter writer(folder.path(), 2);
      fill(writer, 2);
      writer.commit(2);
    } catch (const IoError& error) {
      message = error.what();
    }
    [[maybe_unused]] ssize_t ignored = write(report[1], message.data(), message.size());
    _exit(0);
  }
  close(report[1]);
  std::string message(4096, '\0');
  message.resize(
      static_cast<std::size_t>(std::max<ssize_t>(0, read(report[0], message.data(), 4096))));
  waitpid(child, nullptr, 0);
  EXPECT_NE(message.find(".tmp-step-000002/config.json: cannot write: File too large"),
            std::string::npos)
      << message;
  EXPECT_EQ(names(folder.path()), std::vector<std::string>{"step-000001"});
  EXPECT_EQ(damage(newest_complete(folder.path())->path, 1), "");
}

}  // namespace
}  // namespace lectern
