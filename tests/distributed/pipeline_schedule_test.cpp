// Schedules against what their papers promise: order, bubble, micro-batches in flight.
#include "distributed/pipeline_schedule.h"

#include "core/error.h"
#include "core/random.h"
#include "tests/testing.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <set>
#include <tuple>

namespace lectern {
namespace {

PipelineCosts equal_costs(const PipelineShape& shape, double forward, double backward) {
  const auto n = static_cast<std::size_t>(shape.virtual_stages());
  return {std::vector<double>(n, forward), std::vector<double>(n, backward), 0};
}

/// Every shape of up to 5 stages, 12 micro-batches, 3 chunks that is allowed.
std::vector<PipelineShape> shapes() {
  std::vector<PipelineShape> out;
  for (std::int64_t stages = 1; stages <= 5; ++stages)
    for (std::int64_t micro_batches = 1; micro_batches <= 12; ++micro_batches)
      for (std::int64_t chunks = 1; chunks <= 3; ++chunks) {
        if (chunks > 1 && micro_batches % stages != 0) continue;
        for (std::int64_t frozen = 0; frozen <= stages * chunks; ++frozen)
          out.push_back({stages, micro_batches, chunks, frozen});
      }
  return out;
}

TEST(PipelineSchedule, EveryTaskOnceAndBackwardAfterForward) {
  for (const PipelineShape& shape : shapes())
    for (std::int64_t stage = 0; stage < shape.stages; ++stage) {
      std::set<std::pair<std::int64_t, std::int64_t>> forward, backward;
      for (const PipelineTask& task : pipeline_schedule(shape, stage)) {
        const std::pair key{task.micro_batch, task.chunk};
        if (task.action == PipelineAction::forward) {
          EXPECT_TRUE(forward.insert(key).second);
        } else {
          EXPECT_TRUE(forward.count(key));
          EXPECT_TRUE(backward.insert(key).second);
          EXPECT_GE(task.chunk * shape.stages + stage, shape.first_trained);
        }
      }
      EXPECT_EQ(forward.size(), static_cast<std::size_t>(shape.micro_batches * shape.chunks));
      std::int64_t trained = 0;
      for (std::int64_t chunk = 0; chunk < shape.chunks; ++chunk)
        trained += chunk * shape.stages + stage >= shape.first_trained;
      EXPECT_EQ(backward.size(), static_cast<std::size_t>(trained * shape.micro_batches));
    }
}

/// Micro-batches of one chunk come in order, in both directions: gradients add up in one order.
TEST(PipelineSchedule, MicroBatchesStayInOrder) {
  for (const PipelineShape& shape : shapes())
    for (std::int64_t stage = 0; stage < shape.stages; ++stage) {
      std::map<std::pair<PipelineAction, std::int64_t>, std::int64_t> next;
      for (const PipelineTask& task : pipeline_schedule(shape, stage))
        EXPECT_EQ(task.micro_batch, (next[{task.action, task.chunk}]++));
    }
}

TEST(PipelineSchedule, FourStagesByHand) {
  const auto text = [](std::int64_t stage) {
    std::string out;
    for (const PipelineTask& task : pipeline_schedule({4, 5, 1, 0}, stage))
      out += (task.action == PipelineAction::forward ? "F" : "B") +
             std::to_string(task.micro_batch) + " ";
    return out;
  };
  EXPECT_EQ(text(0), "F0 F1 F2 F3 B0 F4 B1 B2 B3 B4 ");
  EXPECT_EQ(text(2), "F0 F1 B0 F2 B1 F3 B2 F4 B3 B4 ");
  EXPECT_EQ(text(3), "F0 B0 F1 B1 F2 B2 F3 B3 F4 B4 ");
}

TEST(PipelineSimulation, BubbleOfThePapers) {
  for (PipelineShape shape : shapes()) {
    if (shape.first_trained != 0 || shape.micro_batches < shape.stages) continue;
    const PipelineTimeline run = simulate_pipeline(shape, equal_costs(shape, 1, 2));
    const auto s = static_cast<double>(shape.stages), m = static_cast<double>(shape.micro_batches),
               v = static_cast<double>(shape.chunks);
    EXPECT_NEAR(run.seconds, 3 * (v * m + s - 1), 1e-9)
        << shape.stages << " " << shape.micro_batches << " " << shape.chunks;
    EXPECT_NEAR(run.bubble, (s - 1) / (v * m + s - 1), 1e-9);
  }
}

TEST(PipelineSimulation, InFlightIsBounded) {
  for (const PipelineShape& shape : shapes()) {
    const PipelineTimeline run = simulate_pipeline(shape, equal_costs(shape, 1, 2));
    for (std::int64_t stage = 0; stage < shape.stages; ++stage) {
      const std::int64_t seen = run.in_flight[static_cast<std::size_t>(stage)];
      const std::int64_t most =
          shape.chunks == 1
              ? std::min(shape.micro_batches, shape.stages - stage)
              : 2 * (shape.stages - 1 - stage) + (shape.chunks - 1) * shape.stages + 1;
      const bool frozen = stage + (shape.chunks - 1) * shape.stages < shape.first_trained;
      EXPECT_LE(seen, frozen ? 0 : most);
    }
  }
}

/// No task begins before its input is there, whatever the costs.
TEST(PipelineSimulation, KeepsDependencies) {
  Random random(5, "costs");
  for (const PipelineShape& shape : shapes()) {
    PipelineCosts costs = equal_costs(shape, 0, 0);
    for (auto* side : {&costs.forward, &costs.backward})
      for (double& cost : *side) cost = static_cast<double>(random.below(1000)) / 100;
    costs.transfer = 0.5;
    const PipelineTimeline run = simulate_pipeline(shape, costs);
    std::map<std::tuple<PipelineAction, std::int64_t, std::int64_t>, PipelineSpan> at;
    for (const PipelineSpan& span : run.spans)
      at[{span.task.action, span.task.chunk * shape.stages + span.stage, span.task.micro_batch}] =
          span;
    const double wait = shape.stages > 1 ? 0.5 : 0;
    for (const auto& [key, span] : at) {
      const auto [action, stage, micro_batch] = key;
      const std::int64_t source = action == PipelineAction::forward ? stage - 1 : stage + 1;
      if (source < 0 || source == shape.virtual_stages()) continue;
      EXPECT_GE(span.begin, at.at({action, source, micro_batch}).end + wait - 1e-9);
    }
  }
}

TEST(PipelineSchedule, RefusesWhatCannotRun) {
  EXPECT_TRUE(testing::throws_with(
      [] {
        pipeline_schedule({4, 6, 2, 0}, 0);
      },
      {"multiple of the 4 stages, got 6"}));
  EXPECT_TRUE(testing::throws_with(
      [] {
        pipeline_schedule({0, 6, 1, 0}, 0);
      },
      {"at least 1, got 0, 6 and 1"}));
  EXPECT_TRUE(testing::throws_with(
      [] {
        pipeline_schedule({2, 2, 1, 3}, 0);
      },
      {"must be 0 to 2 (none), got 3"}));
  EXPECT_THROW(pipeline_schedule({2, 2, 1, 0}, 2), ConfigError);
  EXPECT_THROW(simulate_pipeline({2, 2, 1, 0}, {{1.0}, {1.0}, 0}), ConfigError);
}

/// Against all ways to cut.
TEST(SplitByCost, IsTheBestSplit) {
  Random random(3, "layers");
  for (std::int64_t layers = 1; layers <= 9; ++layers)
    for (std::int64_t parts = 1; parts <= layers; ++parts) {
      std::vector<double> costs(static_cast<std::size_t>(layers));
      for (double& cost : costs) cost = static_cast<double>(random.below(20));
      const auto largest = [&](const std::vector<std::int64_t>& ends) {
        double worst = 0;
        std::int64_t begin = 0;
        for (const std::int64_t end : ends) {
          EXPECT_GT(end, begin);
          worst = std::max(worst, std::accumulate(costs.begin() + begin, costs.begin() + end, 0.0));
          begin = end;
        }
        return worst;
      };
      double best = 1e300;
      for (std::uint32_t cuts = 0; cuts < 1u << (layers - 1); ++cuts) {
        std::vector<std::int64_t> ends;
        for (std::int64_t i = 1; i < layers; ++i)
          if (cuts >> (i - 1) & 1u) ends.push_back(i);
        ends.push_back(layers);
        if (static_cast<std::int64_t>(ends.size()) == parts) best = std::min(best, largest(ends));
      }
      const std::vector<std::int64_t> ends = split_by_cost(costs, parts);
      EXPECT_EQ(ends.back(), layers);
      EXPECT_DOUBLE_EQ(largest(ends), best);
    }
  EXPECT_THROW(split_by_cost({1, 2}, 3), ConfigError);
  EXPECT_THROW(split_by_cost({1, -2}, 1), ConfigError);
}

}  // namespace
}  // namespace lectern
