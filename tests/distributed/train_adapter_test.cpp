// Adapters on meshes: the losses of one rank, from a base that one rank trained, and one checkpoint
// for all.
#include "tests/distributed/train_ranks.h"

namespace lectern {
namespace {

using testing::Overrides;
using testing::TrainRanks;

class TrainAdapter : public TrainRanks {
 protected:
  Overrides kind(const Overrides& more) const {
    Overrides out = {"stage=2",
                     "steps=3",
                     fmt::format("model.init=\"{}\"", folder("base").string()),
                     "checkpoint.every=3",
                     "optimizer.schedule=constant",
                     "optimizer.learning_rate=5e-3",
                     "lora.rank=2",
                     "lora.dropout=0.1",
                     "lora.targets=[\"decoder.attention\",\"decoder.mlp\",\"experts\",\"router\","
                     "\"head\",\"lm_encoder\",\"projector\"]"};
    out.insert(out.end(), more.begin(), more.end());
    return out;
  }
  std::map<std::string, Tensor> pairs(const std::string& run, int step) const {
    return testing::tensors_of(checkpoint(run, step), "adapter");
  }
};

TEST_F(TrainAdapter, OnEveryMeshFollowsOneRank) {
  run(0, "base", {"steps=2"});
  run(0, "one", kind({}));
  const std::vector<std::pair<int, Overrides>> meshes =
      testing::is_long()
          ? std::vector<std::pair<int, Overrides>>{{2, {}},
                                                   {2, {"mesh.pp=2"}},
                                                   {2, {"mesh.ep=2"}},
                                                   {4, {"mesh.pp=2", "mesh.ep=2"}},
                                                   {4, {"mesh.pp=4", "recompute=true"}}}
          : std::vector<std::pair<int, Overrides>>{
                {2, {}}, {4, {"mesh.pp=2", "mesh.ep=2", "recompute=true"}}};
  int number = 0;
  for (const auto& [ranks, mesh] : meshes) {
    const std::string name = fmt::format("mesh-{}", ++number);
    run(ranks, name, kind(mesh));
    expect_close(name, "one");
    const auto want = pairs("one", 3), got = pairs(name, 3);
    ASSERT_EQ(got.size(), want.size()) << name;
    for (const auto& [matrix, tensor] : want)
      EXPECT_TRUE(testing::near(got.at(matrix), tensor, 1e-3)) << name << " " << matrix;
  }
  // A run goes on with other ranks than it began with, and validation reads the whole model.
  Overrides more = kind({"steps=4", "checkpoint.every=4"});
  run(0, "one", more, true);
  run(2, "mesh-1", kind({"steps=4", "checkpoint.every=4", "mesh.ep=2"}), true);
  expect_close("mesh-1", "one");
}

TEST_F(TrainAdapter, ValidationOfAPipelineReadsWithThePairs) {
  run(0, "base", {"steps=2"});
  const std::string held = fmt::format("data.validation=\"{}\"", data_.shards().string());
  const Overrides evaluated = {held, "evaluation.samples=2", "evaluation.every=3",
                               "evaluation.max_new_tokens=4", "lora.dropout=0"};
  run(0, "one", kind(evaluated));
  Overrides mesh = evaluated;
  mesh.push_back("mesh.pp=2");
  run(2, "mesh", kind(mesh));
  expect_close("mesh", "one");
}

}  // namespace
}  // namespace lectern
