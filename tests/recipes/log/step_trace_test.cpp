// lectern train --profile: the trace of a run, read back.
#include "recipes/log/step_trace.h"

#include "recipes/train/trainer.h"
#include "tests/recipes/tiny_run.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace lectern {
namespace {

using testing::TinyData;

struct Event {
  std::string name, category;
  double begin, end;
};

/// Complete events of row 1, in the order of their beginnings, longer ones first.
std::vector<Event> host_events(const std::filesystem::path& file) {
  std::vector<Event> out;
  const auto trace = nlohmann::json::parse(read_file(file));
  for (const auto& event : trace.at("traceEvents"))
    if (event.at("ph") == "X" && event.at("tid") == 1)
      out.push_back({event.at("name"), event.at("cat"), event.at("ts").get<double>(),
                     event.at("ts").get<double>() + event.at("dur").get<double>()});
  std::stable_sort(out.begin(), out.end(), [](const Event& a, const Event& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
  });
  return out;
}

TEST(TracedSteps, ThreeAfterTwoThatWarmUp) {
  const auto pair = [](TracedSteps s) { return std::pair(s.first, s.last); };
  using P = std::pair<std::int64_t, std::int64_t>;
  EXPECT_EQ(pair(traced_steps(1, 100)), P(3, 5));
  EXPECT_EQ(pair(traced_steps(51, 100)), P(53, 55));
  EXPECT_EQ(pair(traced_steps(1, 4)), P(2, 4));
  EXPECT_EQ(pair(traced_steps(1, 2)), P(1, 2));
  EXPECT_EQ(pair(traced_steps(4, 4)), P(4, 4));
  EXPECT_LT(traced_steps(5, 4).last, 5);
}

TEST(StepTrace, OperationsOfThreeSteps) {
  const TinyData data;
  const Recipe recipe = data.recipe("traced", {"steps=6"});
  train(recipe, false, true);
  const std::vector<Event> events = host_events(recipe.run_dir / "trace.json");
  std::vector<std::string> steps;
  std::set<std::string> names, products;
  double of_steps = 0, of_operations = 0;
  for (const Event& event : events) {
    if (event.category == "step") {
      steps.push_back(event.name);
      of_steps += event.end - event.begin;
    } else if (event.category == "operation") {
      names.insert(event.name);
      if (event.name != "between steps") of_operations += event.end - event.begin;
    } else {
      EXPECT_EQ(event.category, "product");
      products.insert(event.name);
    }
  }
  EXPECT_EQ(steps, (std::vector<std::string>{"step 3", "step 4", "step 5"}));
  for (const char* name :
       {"wait for batch", "forward linear", "backward linear", "forward attention",
        "backward rms_norm", "optimizer gradient norm", "optimizer AdamW", "report"})
    EXPECT_TRUE(names.contains(name)) << name;
  for (const char* name : {"linear forward", "linear grad_weight", "attention backward"})
    EXPECT_TRUE(products.contains(name)) << name;
  EXPECT_NEAR(of_operations, of_steps, 1e-6 * of_steps);  // nothing is missing
}

/// Viewers need spans of one row to lie inside one another or apart.
TEST(StepTrace, SpansAreNested) {
  const TinyData data;
  const Recipe recipe = data.recipe("nested");
  train(recipe, false, true);
  const std::vector<Event> events = host_events(recipe.run_dir / "trace.json");
  EXPECT_GT(events.size(), 100u);
  std::vector<Event> open;
  constexpr double kRounding = 1e-3;  // microseconds
  for (const Event& event : events) {
    while (!open.empty() && open.back().end <= event.begin + kRounding) open.pop_back();
    if (!open.empty()) {
      EXPECT_LE(event.end, open.back().end + kRounding) << event.name << " in " << open.back().name;
    }
    open.push_back(event);
  }
}

TEST(StepTrace, ARunIsTheSameWithAndWithout) {
  const TinyData data;
  const Recipe traced = data.recipe("with"), plain = data.recipe("without");
  train(traced, false, true);
  train(plain, false);
  EXPECT_EQ(read_file(traced.run_dir / "metrics.jsonl"),
            read_file(plain.run_dir / "metrics.jsonl"));
  EXPECT_FALSE(std::filesystem::exists(plain.run_dir / "trace.json"));
}

/// A finished run that is resumed does no step: nothing to write, and no error.
TEST(StepTrace, NoStepsNoFile) {
  const TinyData data;
  const Recipe recipe = data.recipe("done");
  train(recipe, false);
  train(recipe, true, true);
  EXPECT_FALSE(std::filesystem::exists(recipe.run_dir / "trace.json"));
}

}  // namespace
}  // namespace lectern
