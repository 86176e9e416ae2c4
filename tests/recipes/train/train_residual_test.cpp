// Training with hyper-connections: the settings reach the model and its checkpoint, the diagnostics
// reach metrics.jsonl, a resumed run is the undisturbed one, recomputation changes nothing, and no
// other program's format is promised.
#include "recipes/checkpoint/model_folder.h"
#include "recipes/export/export.h"
#include "recipes/log/metrics.h"
#include "recipes/train/trainer.h"
#include "tests/recipes/tiny_run.h"

#include <cmath>

namespace lectern {
namespace {

using testing::throws_with;
using testing::TinyData;

std::vector<double> losses(const std::filesystem::path& run) {
  std::vector<double> out;
  for (const MetricFields& record : read_metrics(run / "metrics.jsonl"))
    out.push_back(record["loss"].get<double>());
  return out;
}

TEST(TrainResidual, SettingsReachModelCheckpointAndMetrics) {
  const TinyData data;
  for (const char* kind : {"hc", "mhc"}) {
    const Recipe recipe =
        data.recipe(kind, {fmt::format("model.residual={}", kind), "model.convention=megatron",
                           "model.streams=3", "log.diagnostics_every=2"});
    train(recipe, false);
    const LoadedModel loaded = load_model_folder(recipe.run_dir);
    const ResidualConfig& residual = loaded.model->config().residual;
    EXPECT_EQ(name_of(residual.kind), kind);
    EXPECT_EQ(residual.streams, 3);
    EXPECT_EQ(residual.convention, StreamConvention::megatron);
    const auto records = read_metrics(recipe.run_dir / "metrics.jsonl");
    ASSERT_EQ(records.size(), 4u);
    EXPECT_FALSE(records[2].contains("gain_forward"));
    for (const std::size_t step : {0u, 1u, 3u})
      for (const char* field :
           {"gain_forward", "gain_backward", "gain_forward_min", "gain_backward_min",
            "stream_deviation", "stream_entropy", "encoder_gain_forward", "grad_norm_encoder_00",
            "grad_norm_decoder_01"}) {
        ASSERT_TRUE(records[step].contains(field)) << field;
        EXPECT_TRUE(std::isfinite(records[step][field].get<double>())) << field;
      }
    if (residual.kind == ResidualKind::mhc) {
      EXPECT_NEAR(records[3]["gain_forward"].get<double>(), 1, 1e-2);
    }
  }
}

TEST(TrainResidual, ResumedRunEqualsTheUndisturbedOne) {
  const TinyData data;
  const std::vector<std::string> mhc = {"model.residual=mhc"};
  const Recipe whole = data.recipe("whole", mhc);
  train(whole, false);
  const Recipe half =
      data.recipe("half", {"model.residual=mhc", "steps=2", "optimizer.schedule=constant"});
  const Recipe constant =
      data.recipe("constant", {"model.residual=mhc", "optimizer.schedule=constant"});
  train(constant, false);
  train(half, false);
  Recipe rest = data.recipe("half", {"model.residual=mhc", "optimizer.schedule=constant"});
  train(rest, true);
  EXPECT_EQ(losses(rest.run_dir), losses(constant.run_dir));
}

TEST(TrainResidual, RecomputationChangesNoLoss) {
  const TinyData data;
  const Recipe kept = data.recipe("kept", {"model.residual=mhc"});
  const Recipe rebuilt = data.recipe("rebuilt", {"model.residual=mhc", "recompute=true"});
  const Recipe every = data.recipe("every", {"model.residual=mhc", "recompute_streams=1"});
  EXPECT_EQ(rebuilt.recompute_streams, -1);
  for (const Recipe* recipe : {&kept, &rebuilt, &every}) train(*recipe, false);
  EXPECT_EQ(losses(rebuilt.run_dir), losses(kept.run_dir));
  EXPECT_EQ(losses(every.run_dir), losses(kept.run_dir));
}

/// A run may start from another's weights in another convention.
TEST(TrainResidual, WeightsOfAnotherConventionAreConverted) {
  const TinyData data;
  const Recipe first = data.recipe("first", {"model.residual=mhc", "model.convention=paper"});
  train(first, false);
  const auto loss_after = [&](const std::string& convention) {
    const Recipe next =
        data.recipe("next-" + convention, {"model.residual=mhc", "model.convention=" + convention,
                                           "steps=1", "model.init=" + first.run_dir.string()});
    train(next, false);
    return losses(next.run_dir).at(0);
  };
  const double paper = loss_after("paper");
  EXPECT_NEAR(loss_after("deepseek-v4"), paper, 1e-3 * paper);
  EXPECT_NEAR(loss_after("megatron"), paper, 1e-3 * paper);
}

TEST(TrainResidual, KeysNeedAKind) {
  const TinyData data;
  EXPECT_TRUE(throws_with([&] { data.recipe("a", {"model.streams=2"}); },
                          {"streams needs residual = \"hc\" or \"mhc\""}));
  EXPECT_TRUE(throws_with([&] { data.recipe("a", {"model.residual=sum"}); }, {"residual"}));
  EXPECT_TRUE(throws_with(
      [&] {
        data.recipe("a", {"model.residual=mhc", "model.streams=9"});
      },
      {"streams must be an integer from 1 to 8, got 9"}));
}

TEST(TrainResidual, ExportSaysWhatCanBeExported) {
  const TinyData data;
  const Recipe recipe = data.recipe("run", {"model.residual=mhc", "steps=1"});
  train(recipe, false);
  for (const std::string format : {"hf", "original"}) {
    // Query tables of the published sizes would otherwise be asked for first.
    EXPECT_TRUE(throws_with(
        [&] { export_model(load_model_folder(recipe.run_dir), format, data.folder() / "export"); },
        {"hyper-connections", "residual = \"mhc\"", "residual = \"plain\"", "checkpoint"}));
    EXPECT_FALSE(std::filesystem::exists(data.folder() / "export"));
  }
}

}  // namespace
}  // namespace lectern
