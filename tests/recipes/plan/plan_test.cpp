// lectern plan: meshes from timed units, and the whole command on a tiny recipe.
#include "recipes/plan/plan.h"

#include "tests/recipes/tiny_run.h"
#include "tests/testing.h"

#include <nlohmann/json.hpp>

namespace lectern {
namespace {

std::vector<UnitCost> units_of(const std::vector<double>& forward, std::size_t frozen = 0) {
  std::vector<UnitCost> out;
  for (std::size_t i = 0; i < forward.size(); ++i)
    out.push_back({"unit", 10, i >= frozen, forward[i], 2 * forward[i]});
  return out;
}

BatchRecipe batch_of(std::int64_t global, std::int64_t micro) { return {global, micro}; }

TEST(PlanMeshes, PredictsWhatTheScheduleSays) {
  // Four equal units on two stages: 4 micro-batches and a bubble of one.
  const auto plans = plan_meshes({{2, units_of({1, 1, 1, 1})}}, batch_of(8, 2), 2);
  ASSERT_EQ(plans.size(), 2u);
  const MeshPlan& data = plans[0];  // faster: nobody waits
  EXPECT_EQ(data.pp, 1);
  EXPECT_EQ(data.dp, 2);
  EXPECT_EQ(data.micro_batches, 2);
  EXPECT_DOUBLE_EQ(data.seconds, 2 * 12);
  const MeshPlan& pipe = plans[1];
  EXPECT_EQ(pipe.pp, 2);
  EXPECT_EQ(pipe.ends, (std::vector<std::int64_t>{2, 4}));
  EXPECT_EQ(pipe.micro_batches, 4);
  EXPECT_DOUBLE_EQ(pipe.seconds, (4 + 1) * 6);
  EXPECT_DOUBLE_EQ(pipe.bubble, 1.0 / 5);
  EXPECT_EQ(pipe.most_parameters, 20);
}

TEST(PlanMeshes, FrozenStagesCountTheirForwardOnly) {
  // 4 and 1 forward, the first frozen: on two stages 4 against 1 + 2.
  const auto plans = plan_meshes({{1, units_of({4, 1}, 1)}}, batch_of(6, 1), 2);
  for (const MeshPlan& plan : plans)
    if (plan.pp == 2) {
      EXPECT_DOUBLE_EQ(plan.seconds, 6 * 4 + 3);
    }
}

TEST(PlanMeshes, ChoosesTheMicroBatch) {
  // Half the micro-batch costs half the time: the shorter bubble wins on a pipeline.
  const TimedUnits timed = {{4, units_of({4, 4})}, {2, units_of({2, 2})}};
  for (const MeshPlan& plan : plan_meshes(timed, batch_of(8, 4), 2))
    if (plan.pp == 2) {
      EXPECT_EQ(plan.micro_batch, 2);
      EXPECT_EQ(plan.micro_batches, 4);
    }
  // With a fixed cost a pass the larger one wins.
  const TimedUnits fixed = {{4, units_of({4, 4})}, {2, units_of({4, 4})}};
  for (const MeshPlan& plan : plan_meshes(fixed, batch_of(8, 4), 1)) {
    EXPECT_EQ(plan.micro_batch, 4);
  }
}

TEST(PlanMeshes, SaysWhenNothingFits) {
  EXPECT_TRUE(testing::throws_with(
      [] {
        plan_meshes({{2, units_of({1, 1})}}, batch_of(6, 2), 5);
      },
      {"plan: 5 ranks fit no mesh", "batch.global_size is 6"}));
  EXPECT_TRUE(testing::throws_with(
      [] {
        plan_meshes({{1, units_of({1})}}, batch_of(1, 1), 0);
      },
      {"ranks must be at least 1, got 0"}));
}

TEST(PlanTraining, TimesEveryUnitOfARecipe) {
  const testing::TinyData data(6);
  const TrainingPlan plan =
      plan_training(data.recipe("run", {"stage=2", "batch.global_size=8"}), 2);
  ASSERT_FALSE(plan.units.empty());
  EXPECT_EQ(plan.units.front().name, "vision tokenizer");
  EXPECT_FALSE(plan.units.front().trained);
  EXPECT_EQ(plan.units.back().name, "head");
  std::int64_t parameters = 0;
  for (const UnitCost& unit : plan.units) {
    EXPECT_GT(unit.forward, 0) << unit.name;
    parameters += unit.parameters;
  }
  EXPECT_EQ(plan.meshes.size(), 2u);
  const nlohmann::ordered_json json = plan_json(plan);
  EXPECT_EQ(json["units"].size(), plan.units.size());
  EXPECT_NE(plan_tables(plan).find("| vision tokenizer |"), std::string::npos);
  for (const MeshPlan& mesh : plan.meshes)
    if (mesh.pp == 1) {
      EXPECT_EQ(mesh.most_parameters, parameters);
    }
}

}  // namespace
}  // namespace lectern
