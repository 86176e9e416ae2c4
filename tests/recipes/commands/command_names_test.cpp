// What the program says to who types it for the first time, or in a hurry.
#include "core/io/file.h"
#include "recipes/machine/versions.h"
#include "tests/recipes/spawn.h"

namespace lectern {
namespace {

using testing::Finished;
using testing::run_lectern;

/// Exit status 2, nothing on stdout, and errors that have all of `parts`.
::testing::AssertionResult is_bad_usage(const Finished& run,
                                        std::initializer_list<std::string> parts) {
  if (run.status != 2 || !run.out.empty())
    return ::testing::AssertionFailure() << "status " << run.status << ": " << run.out;
  for (const std::string& part : parts)
    if (run.errors.find(part) == std::string::npos)
      return ::testing::AssertionFailure() << run.errors << "lacks " << part;
  return ::testing::AssertionSuccess();
}

TEST(CommandNames, VersionIsOneLine) {
  const Finished run = run_lectern({"--version"});
  EXPECT_EQ(run.status, 0);
  EXPECT_EQ(run.out, fmt::format("lectern {} ({})\n", kVersion, git_revision()));
  EXPECT_EQ(run.errors, "");
}

TEST(CommandNames, AMistypedCommandIsNamedWithTheNearest) {
  EXPECT_TRUE(is_bad_usage(
      run_lectern({"trian", "quickstart/stage1"}),
      {"lectern has no command trian; did you mean train?", "lectern --help lists them"}));
  EXPECT_TRUE(is_bad_usage(run_lectern({"exprot"}), {"no command exprot; did you mean export?"}));
  EXPECT_TRUE(is_bad_usage(run_lectern({"data", "pagse", "--out", "x"}),
                           {"lectern data has no command pagse; did you mean pages?",
                            "lectern data --help lists them"}));
  const Finished far = run_lectern({"bicycle"});
  EXPECT_TRUE(is_bad_usage(far, {"lectern has no command bicycle (lectern --help"}));
  EXPECT_EQ(far.errors.find("did you mean"), std::string::npos);
}

TEST(CommandNames, AMistypedOptionIsNamedWithTheNearest) {
  EXPECT_TRUE(
      is_bad_usage(run_lectern({"info", "--jsn"}), {"--jsn", "--jsn: did you mean --json?"}));
  EXPECT_TRUE(is_bad_usage(
      run_lectern({"export", "--chekpoint=x", "--format", "hf", "--out", "y", "--checkpoint", "z"}),
      {"--chekpoint=x: did you mean --checkpoint?"}));
}

TEST(CommandNames, PlansForACardAreMadeFromAnywhereHoweverItIsWritten) {
  const testing::TemporaryFolder folder;
  const auto plan = [&](const std::string& gpu) {
    const std::string command = fmt::format(
        "cd '{0}' && '{1}' plan {2}/stage1 --gpus 8 --gpu '{3}' --json > out 2> errors",
        folder.path().string(), testing::lectern_binary(), testing::first_family(), gpu);
    const int status = WEXITSTATUS(std::system(command.c_str()));
    return Finished{status, read_file(folder.path() / "out"), read_file(folder.path() / "errors")};
  };
  const Finished want = plan("h100");
  EXPECT_EQ(want.status, 0) << want.errors;
  EXPECT_NE(want.out.find("\"h100\""), std::string::npos);
  for (const char* name : {"H100", "h-100"}) {
    const Finished got = plan(name);
    EXPECT_EQ(got.status, 0) << got.errors;
    EXPECT_EQ(got.out, want.out);
  }
  const Finished wrong = plan("A100");
  EXPECT_EQ(wrong.status, 1);
  EXPECT_NE(wrong.errors.find("a100-40g, a100-80g, h100, h200"), std::string::npos) << wrong.errors;
  EXPECT_NE(wrong.errors.find("got A100; did you mean a100-40g?"), std::string::npos)
      << wrong.errors;
  EXPECT_NE(wrong.errors.find("machines/gpus.toml"), std::string::npos) << wrong.errors;
  EXPECT_NE(plan("H100 SXM").errors.find("did you mean h100?"), std::string::npos);
}

}  // namespace
}  // namespace lectern
