// What people run on a mesh: the three stages in turn, each from the one before, and training that
// begins from the released layouts. Every rank takes its own tensors of a checkpoint of them all.
#include "recipes/export/export.h"
#include "tests/distributed/train_ranks.h"

namespace lectern {
namespace {

using testing::Overrides;
using testing::TrainRanks;

/// A mesh, and whether blocks are computed again in backward.
struct StagesCase {
  int ranks, pp, ep;
  bool recompute;

  std::string name() const {
    return fmt::format("pp{}-ep{}{}", pp, ep, recompute ? "-recompute" : "");
  }
  Overrides overrides() const {
    return {fmt::format("mesh.pp={}", pp), fmt::format("mesh.ep={}", ep),
            fmt::format("recompute={}", recompute)};
  }
};

Overrides joined(Overrides a, const Overrides& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class TrainStages : public TrainRanks {
 protected:
  /// Runs <name>-1, <name>-2, <name>-3, the first from random weights.
  void run_stages(int ranks, const std::string& name, const Overrides& more) {
    std::string init = "random";
    for (int stage = 1; stage <= 3; ++stage) {
      const std::string run_name = fmt::format("{}-{}", name, stage);
      run(ranks, run_name,
          joined({fmt::format("stage={}", stage), fmt::format("model.init=\"{}\"", init)}, more));
      init = folder(run_name).string();
    }
  }
  void expect_stages_close(const std::string& got, const std::string& want) const {
    for (int stage = 1; stage <= 3; ++stage)
      expect_close(fmt::format("{}-{}", got, stage), fmt::format("{}-{}", want, stage));
  }

  /// A trained model of one rank in the layouts that others release, one folder each: "hf",
  /// "original"; "sam.safetensors" as segment-anything, "qwen2.safetensors" as Qwen2 names it.
  void write_released(const std::string& from) {
    const LoadedModel model = load_model_folder(folder(from));
    export_model(model, "hf", folder("hf"));
    export_model(model, "original", folder("original"));
    std::vector<std::pair<std::string, Tensor>> sam, qwen2;
    const std::string sam_prefix = "model.sam_model.";
    const std::string qwen2_prefix = "model.qwen2_model.model.model.";
    for (const auto& [name, tensor] : model.model->store().state()) {
      if (name.starts_with(sam_prefix) && name.find(".net_") == std::string::npos)
        sam.emplace_back("image_encoder." + name.substr(sam_prefix.size()), tensor);
      if (name.starts_with(qwen2_prefix))
        qwen2.emplace_back("model." + name.substr(qwen2_prefix.size()), tensor);
    }
    // Both files hold more than is taken.
    sam.emplace_back("mask_decoder.iou_token.weight", Tensor::zeros({1, 8}));
    qwen2.emplace_back("lm_head.weight", Tensor::zeros({11, 24}));
    save_safetensors(folder("sam.safetensors"), sam);
    save_safetensors(folder("qwen2.safetensors"), qwen2);
  }
};

std::vector<StagesCase> mesh_cases(const std::string& residual) {
  if (!testing::is_long()) {
    if (residual == "plain") return {{2, 2, 1, true}, {2, 1, 2, true}, {4, 2, 2, false}};
    return {{4, 2, 2, true}, {4, 4, 1, false}};
  }
  std::vector<StagesCase> out;
  for (const bool recompute : {false, true})
    for (const auto& [ranks, pp, ep] :
         {std::array{2, 2, 1}, std::array{2, 1, 2}, std::array{4, 2, 2}, std::array{4, 4, 1}})
      out.push_back({ranks, pp, ep, recompute});
  return out;
}

TEST_F(TrainStages, FollowOneRankOnEveryMesh) {
  const int steps = testing::is_long() ? 10 : 3;
  for (const char* residual : {"plain", "mhc"}) {
    const Overrides kind = {
        fmt::format("steps={}", steps), fmt::format("checkpoint.every={}", steps),
        "moe.balance_loss=0.01",        "optimizer.schedule=constant",
        "optimizer.learning_rate=1e-3", fmt::format("model.residual={}", residual)};
    const std::string one = fmt::format("{}-one", residual);
    run_stages(0, one, kind);
    for (const StagesCase& mesh : mesh_cases(residual)) {
      const std::string name = fmt::format("{}-{}", residual, mesh.name());
      run_stages(mesh.ranks, name, joined(mesh.overrides(), kind));
      expect_stages_close(name, one);
    }
  }
}

TEST_F(TrainStages, BeginFromTheReleasedLayouts) {
  write_file(data_.config(), testing::tiny_config(144, 256).dump());  // as the layouts want them
  run(0, "source", {"steps=2"});
  write_released("source");
  run(0, "other", {"steps=1", "seed=9"});
  const auto key = [&](const char* name, const char* file) {
    return fmt::format("model.{}=\"{}\"", name, folder(file).string());
  };
  const std::vector<std::pair<std::string, Overrides>> starts = {
      {"hf", {key("init", "hf")}},
      {"original", {key("init", "original")}},
      {"parts",
       {key("init_encoder", "other"), key("init_decoder", "hf"), key("init_sam", "sam.safetensors"),
        key("init_qwen2", "qwen2.safetensors")}}};
  const Overrides kind = {"steps=2", "checkpoint.every=0", "seed=4", "optimizer.schedule=constant"};
  std::vector<StagesCase> meshes = {{4, 2, 2, false}};
  if (testing::is_long())
    meshes = {{2, 2, 1, false}, {2, 1, 2, false}, {4, 2, 2, false}, {4, 4, 1, false}};
  for (const auto& [start, init] : starts) {
    const std::string one = start + "-one";
    run(0, one, joined(kind, init));
    for (const StagesCase& mesh : meshes) {
      const std::string name = fmt::format("{}-{}", start, mesh.name());
      run(mesh.ranks, name, joined(mesh.overrides(), joined(kind, init)));
      expect_close(name, one);
    }
  }
  // The starts are not the same, and none of them is random.
  run(0, "random", kind);
  EXPECT_EQ(metrics_text("hf-one"), metrics_text("original-one"));
  EXPECT_NE(metrics_text("hf-one"), metrics_text("parts-one"));
  EXPECT_NE(metrics_text("random"), metrics_text("parts-one"));
}

TEST_F(TrainStages, AForeignTensorIsRefusedOnAMesh) {
  run(0, "source", {"steps=1"});
  const auto source = checkpoint("source", 1);
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const auto& [name, tensor] : testing::tensors_of(source)) tensors.emplace_back(name, tensor);
  tensors.emplace_back("model.layers.1.mlp.experts.4.up_proj.weight", Tensor::zeros({16, 32}));
  const auto foreign = folder("foreign");
  std::filesystem::create_directories(foreign);
  std::filesystem::copy_file(source / "config.json", foreign / "config.json");
  save_safetensors(foreign / "model.safetensors", tensors);
  testing::RanksChild child(
      2, arguments("run", {"mesh.pp=2", fmt::format("model.init=\"{}\"", foreign.string())}));
  EXPECT_NE(child.wait(), 0);
  EXPECT_NE(child.errors().find("tensor model.layers.1.mlp.experts.4.up_proj.weight is not part of "
                                "this model (1 such tensors)"),
            std::string::npos)
      << child.errors();
}

}  // namespace
}  // namespace lectern
