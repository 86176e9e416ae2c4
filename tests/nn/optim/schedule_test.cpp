#include "nn/optim/schedule.h"

#include "tests/testing.h"

#include <cmath>
#include <limits>

namespace lectern {
namespace {

using testing::throws_with;

ScheduleArgs cosine() {
  ScheduleArgs args;
  args.peak = 1e-3;
  args.minimum = 1e-4;
  args.warmup_steps = 10;
  args.total_steps = 111;
  return args;
}

TEST(Schedule, WarmUpIsLinearAndNeverZero) {
  for (const auto kind : {ScheduleKind::cosine, ScheduleKind::constant, ScheduleKind::step}) {
    ScheduleArgs args = cosine();
    args.kind = kind;
    EXPECT_DOUBLE_EQ(learning_rate(args, 0), 1e-4);
    EXPECT_DOUBLE_EQ(learning_rate(args, 4), 5e-4);
    EXPECT_DOUBLE_EQ(learning_rate(args, 9), 1e-3);
    EXPECT_DOUBLE_EQ(learning_rate(args, 10), 1e-3);
  }
}

TEST(Schedule, CosineFallsFromPeakToMinimum) {
  const ScheduleArgs args = cosine();
  // 100 intervals after step 10: a quarter, half and three quarters of the way.
  EXPECT_NEAR(learning_rate(args, 35), 1e-4 + 9e-4 * (1 + std::sqrt(0.5)) / 2, 1e-15);
  EXPECT_NEAR(learning_rate(args, 60), 5.5e-4, 1e-15);
  EXPECT_NEAR(learning_rate(args, 85), 1e-4 + 9e-4 * (1 - std::sqrt(0.5)) / 2, 1e-15);
  EXPECT_DOUBLE_EQ(learning_rate(args, 110), 1e-4);
  EXPECT_DOUBLE_EQ(learning_rate(args, 111), 1e-4);
  EXPECT_DOUBLE_EQ(learning_rate(args, std::numeric_limits<std::int64_t>::max()), 1e-4);
  for (std::int64_t step = 10; step < 110; ++step)
    EXPECT_GT(learning_rate(args, step), learning_rate(args, step + 1)) << step;
}

TEST(Schedule, ShortRuns) {
  ScheduleArgs args = cosine();
  args.warmup_steps = 0;
  args.total_steps = 1;
  EXPECT_DOUBLE_EQ(learning_rate(args, 0), 1e-3);
  args.total_steps = 2;
  EXPECT_DOUBLE_EQ(learning_rate(args, 0), 1e-3);
  EXPECT_DOUBLE_EQ(learning_rate(args, 1), 1e-4);
  args.warmup_steps = 5;  // longer than the run: it ends warming up
  EXPECT_DOUBLE_EQ(learning_rate(args, 1), 4e-4);
}

TEST(Schedule, Constant) {
  ScheduleArgs args;
  args.kind = ScheduleKind::constant;
  args.peak = 0.25;
  for (const std::int64_t step : {0, 1, 1000000}) EXPECT_EQ(learning_rate(args, step), 0.25);
}

TEST(Schedule, StepsAreSharesOfThePeak) {
  ScheduleArgs args;
  args.kind = ScheduleKind::step;
  args.peak = 2;
  args.milestones = {10, 20};
  args.factors = {0.5, 0.1};
  EXPECT_DOUBLE_EQ(learning_rate(args, 9), 2);
  EXPECT_DOUBLE_EQ(learning_rate(args, 10), 1);
  EXPECT_DOUBLE_EQ(learning_rate(args, 19), 1);
  EXPECT_DOUBLE_EQ(learning_rate(args, 20), 0.2) << "not 0.5 x 0.1";
  EXPECT_DOUBLE_EQ(learning_rate(args, 1000), 0.2);
  args.warmup_steps = 40;
  EXPECT_DOUBLE_EQ(learning_rate(args, 19), 2 * 0.5 * 20 / 40);
}

TEST(Schedule, KindsByName) {
  EXPECT_EQ(schedule_kind("cosine"), ScheduleKind::cosine);
  EXPECT_EQ(schedule_kind("constant"), ScheduleKind::constant);
  EXPECT_EQ(schedule_kind("step"), ScheduleKind::step);
  EXPECT_TRUE(throws_with([] { schedule_kind("linear"); },
                          {"schedule: kind must be cosine, constant or step, got \"linear\""}));
}

TEST(Schedule, Errors) {
  const auto refuses = [](const std::function<void(ScheduleArgs&)>& spoil, std::string_view part) {
    ScheduleArgs args = cosine();
    spoil(args);
    return throws_with([&] { learning_rate(args, 3); }, {part});
  };
  EXPECT_TRUE(refuses([](auto& a) { a.peak = -1; }, "schedule: peak must be 0 or more, got -1"));
  EXPECT_TRUE(refuses([](auto& a) { a.peak = NAN; }, "peak must be 0 or more, got nan"));
  EXPECT_TRUE(refuses([](auto& a) { a.minimum = 1; }, "minimum must be in 0..peak = 0.001, got 1"));
  EXPECT_TRUE(refuses([](auto& a) { a.warmup_steps = -2; }, "warmup_steps must be 0 or more"));
  EXPECT_TRUE(refuses([](auto& a) { a.total_steps = 0; }, "total_steps must be 1 or more, got 0"));
  const auto to_steps = [](ScheduleArgs& a, std::vector<std::int64_t> milestones,
                           std::vector<double> factors) {
    a.kind = ScheduleKind::step;
    a.milestones = std::move(milestones);
    a.factors = std::move(factors);
  };
  EXPECT_TRUE(refuses(
      [&](auto& a) {
        to_steps(a, {1, 2}, {0.5});
      },
      "factors must be one for each of the 2 milestones, got 1"));
  EXPECT_TRUE(refuses(
      [&](auto& a) {
        to_steps(a, {5, 5}, {0.5, 0.1});
      },
      "milestones must rise, got 5 after 5"));
  EXPECT_TRUE(
      refuses([&](auto& a) { to_steps(a, {5}, {-0.5}); }, "factors must be 0 or more, got -0.5"));
  EXPECT_TRUE(throws_with([] { learning_rate(cosine(), -1); }, {"step must be 0 or more, got -1"}));
}

}  // namespace
}  // namespace lectern
