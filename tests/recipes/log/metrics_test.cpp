#include "recipes/log/metrics.h"

#include "core/error.h"
#include "core/io/file.h"
#include "tests/testing.h"

#include <bit>
#include <cmath>

namespace lectern {
namespace {

using testing::throws_with;

MetricFields fields(std::int64_t step, double seconds) {
  return {{"loss", 3.0 / static_cast<double>(step)},
          {"grad_norm", 0.1 * static_cast<double>(step)},
          {"seconds", seconds},
          {"peak_bytes", 1000 + step},
          {"router_loss", 1e-300}};
}

TEST(Metrics, OneObjectALineInOrderAndBitForBit) {
  testing::TemporaryFolder folder;
  const auto path = folder.path() / "metrics.jsonl";
  {
    MetricsWriter writer(path, 0);
    writer.write(1, fields(1, 0.5));
    writer.write(3, {{"loss", 0.1 + 0.2}, {"bad", std::nan("")}});
    writer.sync();
  }
  EXPECT_EQ(read_file(path),
            "{\"step\":1,\"loss\":3.0,\"grad_norm\":0.1,\"seconds\":0.5,\"peak_bytes\":1001,"
            "\"router_loss\":1e-300}\n{\"step\":3,\"loss\":0.30000000000000004,\"bad\":null}\n");
  const auto records = read_metrics(path);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(std::bit_cast<std::uint64_t>(records[1]["loss"].get<double>()),
            std::bit_cast<std::uint64_t>(0.1 + 0.2));
}

TEST(Metrics, ResumedFileEqualsTheUndisturbedOne) {
  testing::TemporaryFolder folder;
  const auto whole = folder.path() / "whole.jsonl", cut = folder.path() / "cut.jsonl";
  {
    MetricsWriter writer(whole, 0, false);
    for (int step = 1; step <= 10; ++step) writer.write(step, fields(step, step * 0.7));
  }
  {
    MetricsWriter writer(cut, 0, false);
    for (int step = 1; step <= 7; ++step) writer.write(step, fields(step, step * 0.9));
  }
  // Killed in the middle of a line, three steps after the checkpoint.
  write_file(cut, read_file(cut) + "{\"step\":8,\"lo");
  {
    MetricsWriter writer(cut, 4, false);
    for (int step = 5; step <= 10; ++step) writer.write(step, fields(step, step * 1.1));
  }
  EXPECT_EQ(read_file(whole), read_file(cut));
  EXPECT_EQ(read_file(whole).find("seconds"), std::string::npos);
  EXPECT_EQ(read_file(whole).find("peak_bytes"), std::string::npos);
}

TEST(Metrics, StartingAgainFromZeroForgetsEverything) {
  testing::TemporaryFolder folder;
  const auto path = folder.path() / "m.jsonl";
  write_file(path, "{\"step\":1}\n");
  { MetricsWriter writer(path, 0); }
  EXPECT_EQ(read_file(path), "");
}

TEST(Metrics, DeterministicViewDropsTheClock) {
  EXPECT_EQ(deterministic_view("{\"step\":1,\"loss\":2.5,\"seconds\":3.1,\"peak_bytes\":9}"),
            "{\"step\":1,\"loss\":2.5}");
  EXPECT_THROW(deterministic_view("not json"), IoError);
  EXPECT_THROW(deterministic_view(std::string(100000, '[')), IoError);
}

TEST(Metrics, BrokenLinesAreNamed) {
  testing::TemporaryFolder folder;
  const auto path = folder.path() / "m.jsonl";
  write_file(path, "{\"step\":1}\n{\"loss\":\n{\"step\":2}\n");
  EXPECT_TRUE(throws_with([&] { read_metrics(path); }, {"m.jsonl:2: must be a JSON object"}));
  write_file(path, "{\"step\":1}\n{\"loss\":");
  EXPECT_EQ(read_metrics(path).size(), 1u);  // a crash's half line
}

TEST(Metrics, FullDiskIsAnIoError) {
  MetricsWriter writer("/dev/full", -1);
  EXPECT_TRUE(throws_with([&] { writer.write(1, {}); }, {"/dev/full: cannot write"}));
}

TEST(RunFolder, RefusesToMixRuns) {
  testing::TemporaryFolder folder;
  const auto path = folder.path() / "runs" / "a";
  {
    RunFolder run(path, false);
    run.write_config("steps = 1\n");
    EXPECT_EQ(read_file(path / "config.toml"), "steps = 1\n");
    EXPECT_TRUE(std::filesystem::is_directory(run.checkpoints()));
  }
  EXPECT_NO_THROW(RunFolder(path, false));  // nothing was logged yet
  write_file(path / "metrics.jsonl", "{\"step\":1}\n");
  EXPECT_TRUE(throws_with([&] { RunFolder(path, false); }, {"run_dir must be a new folder"}));
  EXPECT_NO_THROW(RunFolder(path, true));
  {
    const RunFolder run(path, true);
    EXPECT_TRUE(throws_with([&] { RunFolder(path, true); }, {"is in use by process"}));
    EXPECT_NO_THROW(RunFolder(path, true, RunFolder::Use::other_rank));
    EXPECT_EQ(run.put_aside("metrics.jsonl"), path / "metrics-before-1.jsonl");
    write_file(run.metrics(), "");
    EXPECT_EQ(run.put_aside("metrics.jsonl"), path / "metrics-before-2.jsonl");
    EXPECT_EQ(read_file(path / "metrics-before-1.jsonl"), "{\"step\":1}\n");
  }
  write_file(folder.path() / "file", "");
  EXPECT_TRUE(throws_with([&] { RunFolder(folder.path() / "file", false); },
                          {"cannot create the run folder"}));
}

}  // namespace
}  // namespace lectern
