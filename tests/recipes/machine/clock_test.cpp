// A clock that is set back while training runs changes nothing: durations and the time left are of
// the clock that never goes back.
#include "recipes/train/trainer.h"
#include "tests/recipes/spawn.h"
#include "tests/recipes/tiny_run.h"

#include <algorithm>

namespace lectern {
namespace {

using testing::Child;
using testing::TinyData;

/// build/tests/libclock_back.so, beside this program.
std::string clock_back() {
  return (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "libclock_back.so")
      .string();
}

TEST(ClockSetBack, TrainingIsTheSameAndItsTimesArePlausible) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "ThreadSanitizer must be the first library";
#endif
  const TinyData data;
  const std::vector<std::string> settings = {"log.tensorboard=true", "log.progress_seconds=0.001"};
  train(data.recipe("whole", settings), false);
  const auto run = [&](const std::string& steps, bool resume) {
    std::vector<std::string> words = {"train", data.recipe_file("run").string(), "--json"};
    for (const std::string& text : settings) words.insert(words.end(), {"--set", text});
    words.insert(words.end(), {"--set", "optimizer.schedule=cosine", "--set", "steps=" + steps});
    if (resume) words.emplace_back("--resume");
    Child child(words, "",
                {"env", "LD_PRELOAD=" + clock_back(), "ASAN_OPTIONS=verify_asan_link_order=0"});
    EXPECT_EQ(child.wait(), 0) << child.errors();
    const auto summary = nlohmann::json::parse(child.out());
    EXPECT_GE(summary["seconds"], 0);
    EXPECT_LT(summary["seconds"], 1800);
    EXPECT_GT(summary["samples_per_second"], 0);
    for (const char* odd : {"left -", "h left", "nan", "inf "})
      EXPECT_EQ(child.errors().find(odd), std::string::npos) << child.errors();
  };
  run("4", false);
  EXPECT_EQ(testing::metrics_text(data, "run"), testing::metrics_text(data, "whole"));
  EXPECT_EQ(testing::first_difference(testing::tensors_of(testing::checkpoint(data, "run", 4)),
                                      testing::tensors_of(testing::checkpoint(data, "whole", 4))),
            "");
  const auto events = [&] {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(data.folder() / "run"))
      if (entry.path().filename().string().starts_with("events."))
        names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  };
  const auto first = events();
  ASSERT_EQ(first.size(), 1u);
  run("6", true);
  const auto both = events();
  ASSERT_EQ(both.size(), 2u);
  EXPECT_EQ(both[0], first[0]) << "the later file must come after " << both[1];
}

}  // namespace
}  // namespace lectern
