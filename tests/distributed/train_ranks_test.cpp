// Training under mpirun: the same losses as one rank, the same bits when repeated, checkpoints that
// any number of ranks goes on from.
#include "tests/distributed/train_ranks.h"

#include <set>

namespace lectern {
namespace {

using testing::first_difference;
using testing::Overrides;
using testing::RanksChild;
using testing::tensors_of;
using testing::TrainRanks;

TEST_F(TrainRanks, FollowOneRankInEveryStage) {
  for (int stage = 1; stage <= 3; ++stage) {
    const Overrides kind = {fmt::format("stage={}", stage), "steps=20",
                            "moe.balance_loss=0.01",        "optimizer.schedule=constant",
                            "optimizer.learning_rate=1e-3", "checkpoint.every=0",
                            "mesh.bucket_bytes=20000"};
    const auto more = [&](Overrides extra) {
      extra.insert(extra.end(), kind.begin(), kind.end());
      return extra;
    };
    const std::string one = fmt::format("one{}", stage);
    run(0, one, kind);
    struct Case {
      int ranks;
      bool zero;
    };
    std::vector<Case> cases = {{2, true}};
    if (stage == 1) cases.push_back({4, false});
    if (testing::is_long()) cases = {{2, true}, {2, false}, {4, true}, {4, false}};
    for (const auto& [ranks, zero] : cases) {
      const std::string name = fmt::format("ranks{}-{}-{}", ranks, stage, zero ? "zero" : "plain");
      run(ranks, name, more({fmt::format("mesh.zero={}", zero)}));
      expect_close(name, one);
    }
  }
}

TEST_F(TrainRanks, FollowOneRankInAllElse) {
  // Packs, two resolutions, whole pages and words, diagnostics of streams, loss-free balancing.
  const Overrides packed = {"steps=6",
                            "data.pack_tokens=64",
                            "view.resolutions=[16, 32]",
                            "data.level=mixed",
                            "data.word_share=0.7",
                            "data.page_share=0.3",
                            "batch.micro_batch=1",
                            "moe.bias_balancing_rate=0.01"};
  const Overrides streams = {"steps=6", "model.residual=mhc", "log.diagnostics_every=2",
                             "recompute=true"};
  const Overrides read = {"steps=4", "evaluation.samples=5", "evaluation.every=2",
                          "evaluation.max_new_tokens=4",
                          fmt::format("data.validation=\"{}\"", data_.shards().string())};
  const std::vector<std::pair<std::string, Overrides>> kinds = {
      {"packed", packed}, {"streams", streams}, {"read", read}};
  for (const auto& [name, kind] : kinds) {
    run(0, name + "-one", kind);
    run(2, name + "-two", kind);
    expect_close(name + "-two", name + "-one", name == "read" ? 1e-4 : 1e-5);
    if (testing::is_long()) {
      run(4, name + "-four", kind);
      expect_close(name + "-four", name + "-one", name == "read" ? 1e-4 : 1e-5);
    }
  }
}

TEST_F(TrainRanks, RepeatedRunsHaveTheSameBits) {
  for (const char* name : {"a", "b"}) run(2, name, {"steps=6", "checkpoint.every=3"});
  EXPECT_EQ(metrics_text("a"), metrics_text("b"));
  expect_same_tensors("a", "b", 6);
  // With ZeRO or without: the same sums, the same updates.
  run(2, "plain", {"steps=6", "mesh.zero=false"});
  EXPECT_EQ(metrics_text("plain"), metrics_text("a"));
  EXPECT_EQ(first_difference(tensors_of(checkpoint("plain", 6)), tensors_of(checkpoint("a", 6))),
            "");
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(checkpoint("a", 6)))
    names.insert(entry.path().filename().string());
  EXPECT_EQ(names,
            (std::set<std::string>{
                "COMPLETE", "config.json", "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors", "model.safetensors.index.json",
                "optimizer-00001-of-00002.safetensors", "optimizer-00002-of-00002.safetensors",
                "optimizer.safetensors.index.json", "state.json", "tokenizer.json"}));
}

TEST_F(TrainRanks, GoOnWithAnotherNumberOfRanks) {
  const Overrides kind = {"optimizer.schedule=constant", "moe.bias_balancing_rate=0.01"};
  const auto until = [&](int steps, bool zero) {
    Overrides out = kind;
    out.push_back(fmt::format("steps={}", steps));
    out.push_back(fmt::format("mesh.zero={}", zero));
    return out;
  };
  run(0, "one", until(8, true));
  // One rank, then two with ZeRO, then four without, then two with, then one.
  run(0, "parts", until(2, true));
  run(2, "parts", until(4, true), true);
  run(4, "parts", until(5, false), true);
  run(2, "parts", until(7, true), true);
  run(0, "parts", until(8, true), true);
  const auto a = read_metrics(folder("parts") / "metrics.jsonl");
  const auto b = read_metrics(folder("one") / "metrics.jsonl");
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    for (const char* field : {"loss", "grad_norm"})
      EXPECT_NEAR(a[i][field].get<double>(), b[i][field].get<double>(),
                  1e-5 * b[i][field].get<double>())
          << i << " " << field;
}

/// Meshes: pipeline stages, chunks of each, expert-parallel ranks.
struct MeshCase {
  int ranks, pp, chunks, ep;
  bool zero;
  Overrides overrides() const {
    return {fmt::format("mesh.pp={}", pp), fmt::format("mesh.chunks={}", chunks),
            fmt::format("mesh.ep={}", ep), fmt::format("mesh.zero={}", zero)};
  }
  std::string name() const {
    return fmt::format("ranks{}-pp{}x{}-ep{}-{}", ranks, pp, chunks, ep, zero ? "zero" : "whole");
  }
};

std::vector<MeshCase> mesh_cases() {
  if (!testing::is_long()) return {{2, 2, 1, 1, true}, {2, 1, 1, 2, true}, {4, 2, 2, 2, false}};
  std::vector<MeshCase> out;
  for (const int ranks : {2, 4, 8})
    for (const int pp : {1, 2, 4})
      for (const int ep : {1, 2})
        for (const bool zero : {true, false}) {
          if (ranks % (pp * ep) != 0 || ranks / pp > 4) continue;
          out.push_back({ranks, pp, 1, ep, zero});
          if (pp == 2 && ranks / pp <= 2) out.push_back({ranks, pp, 2, ep, zero});
        }
  return out;
}

TEST_F(TrainRanks, EveryMeshFollowsOneRank) {
  for (const char* residual : {"plain", "mhc"})
    for (int stage = 1; stage <= 3; ++stage) {
      if (!testing::is_long() && std::string(residual) == "mhc" && stage != 1) continue;
      const Overrides kind = {fmt::format("stage={}", stage),
                              "steps=20",
                              "moe.balance_loss=0.01",
                              "optimizer.schedule=constant",
                              "optimizer.learning_rate=1e-3",
                              "checkpoint.every=0",
                              "log.diagnostics_every=0",  // gains are of whole stacks
                              fmt::format("model.residual={}", residual)};
      const std::string one = fmt::format("one-{}-{}", residual, stage);
      run(0, one, kind);
      for (const MeshCase& mesh : mesh_cases()) {
        const std::string name = fmt::format("{}-{}-{}", mesh.name(), residual, stage);
        Overrides all = mesh.overrides();
        all.insert(all.end(), kind.begin(), kind.end());
        run(mesh.ranks, name, all);
        expect_close(name, one);
      }
    }
}

TEST_F(TrainRanks, GoOnOnAnotherMesh) {
  const auto until = [](int steps, const Overrides& mesh) {
    Overrides out = {"optimizer.schedule=constant", fmt::format("steps={}", steps)};
    out.insert(out.end(), mesh.begin(), mesh.end());
    return out;
  };
  run(0, "one", until(8, {}));
  run(2, "parts", until(2, {"mesh.pp=2"}));
  run(2, "parts", until(4, {"mesh.ep=2"}), true);
  run(4, "parts", until(6, {"mesh.pp=2", "mesh.ep=2", "mesh.zero=false"}), true);
  run(0, "parts", until(8, {}), true);
  const auto a = read_metrics(folder("parts") / "metrics.jsonl");
  const auto b = read_metrics(folder("one") / "metrics.jsonl");
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    for (const char* field : {"loss", "grad_norm"})
      EXPECT_NEAR(a[i][field].get<double>(), b[i][field].get<double>(),
                  1e-5 * b[i][field].get<double>())
          << i << " " << field;
}

TEST_F(TrainRanks, MeshesReadHeldOutSamplesAndBalanceTheirExperts) {
  const Overrides kind = {"steps=6",
                          "optimizer.schedule=constant",
                          "optimizer.learning_rate=1e-3",
                          "moe.bias_balancing_rate=0.01",
                          "checkpoint.every=2",
                          "evaluation.samples=5",
                          "evaluation.every=3",
                          "evaluation.max_new_tokens=4",
                          "log.diagnostics_every=0",
                          fmt::format("data.validation=\"{}\"", data_.shards().string())};
  run(0, "one", kind);
  ASSERT_NE(metrics_text("one").find("eval_cer"), std::string::npos);
  const auto biases = [&](const std::string& name) {
    std::map<std::string, Tensor> out;
    for (auto& [tensor, value] : tensors_of(checkpoint(name, 6), "optimizer"))
      if (tensor.starts_with("selection_bias.")) out[tensor] = value;
    return out;
  };
  ASSERT_EQ(biases("one").size(), 1u);
  for (const MeshCase& mesh : mesh_cases()) {
    if (mesh.ranks > 4) continue;
    Overrides all = mesh.overrides();
    all.insert(all.end(), kind.begin(), kind.end());
    run(mesh.ranks, mesh.name(), all);
    expect_close(mesh.name(), "one", 1e-4);
    EXPECT_EQ(first_difference(biases(mesh.name()), biases("one")), "") << mesh.name();
    EXPECT_FALSE(std::filesystem::exists(folder(mesh.name()) / "checkpoints" / ".tmp-reading"));
  }
  // Router biases of all stages come back on another mesh.
  Overrides longer = kind;
  longer[0] = "steps=8";
  run(0, "one", longer, true);
  for (const auto& [name, mesh] :
       {std::pair{"ranks2-pp2x1-ep1-zero", Overrides{"mesh.pp=2"}},
        std::pair{"ranks2-pp1x1-ep2-zero", Overrides{"mesh.pp=2", "mesh.split=[2, 6]"}}}) {
    Overrides all = longer;
    all.insert(all.end(), mesh.begin(), mesh.end());
    run(2, name, all, true);
    expect_close(name, "one", 1e-4);
    EXPECT_EQ(biases(name).size(), 1u);
  }
}

TEST_F(TrainRanks, AReadingMovesTheCurriculumOfAMesh) {
  const auto recipe_of = [&](const std::string& name) {
    const auto path = data_.recipe_file(name);
    std::string text = read_file(path);
    const std::string shards = data_.shards().string();
    text.replace(text.find("shards = ["),
                 text.find('\n', text.find("shards = [")) - text.find("shards = ["), "");
    text.replace(text.find("level = \"word\""), 14, "");
    for (const char* table : {"data.sources", "data.validation_sources"})
      text += fmt::format(
          "[[{}]]\nname = \"{} words\"\nkind = \"shards\"\nlevel = \"word\"\n"
          "shards = \"{}\"\n",
          table, table, shards);
    text +=
        "[[curriculum]]\nmeasure = \"loss\"\nadvance_below = 100\n"
        "[[curriculum]]\njitter_pixels = 2\n";
    write_file(path, text);
    return path;
  };
  const Overrides kind = {"steps=5",
                          "evaluation.samples=3",
                          "evaluation.every=2",
                          "evaluation.max_new_tokens=2",
                          "optimizer.schedule=constant",
                          "log.diagnostics_every=0",
                          "batch.global_size=8"};
  const auto run_file = [&](const std::string& name, int ranks, const Overrides& mesh) {
    std::vector<std::string> words = {"train", recipe_of(name).string()};
    for (const Overrides& list : {kind, mesh})
      for (const std::string& text : list) words.insert(words.end(), {"--set", text});
    RanksChild child(ranks, words);
    EXPECT_EQ(child.wait(), 0) << name << ": " << child.errors();
  };
  run_file("one", 1, {});
  // The reading after step 2 ends the first level.
  const auto records = read_metrics(folder("one") / "metrics.jsonl");
  EXPECT_EQ(records[1]["level"], 1);
  EXPECT_EQ(records.back()["level"], 2);
  run_file("stages", 2, {"mesh.pp=2"});
  expect_close("stages", "one", 1e-4);
  run_file("experts", 2, {"mesh.ep=2"});
  expect_close("experts", "one", 1e-4);
}

TEST_F(TrainRanks, APipelineDrawsItsLastStep) {
  run(2, "drawn", {"steps=2", "mesh.pp=2"});
  const std::string svg = read_file(folder("drawn") / "pipeline.svg");
  // Four micro-batches, forward and backward, on two stages.
  const auto count = [&](const std::string& part) {
    std::size_t found = 0;
    for (std::size_t at = svg.find(part); at != std::string::npos; at = svg.find(part, at + 1))
      ++found;
    return found;
  };
  EXPECT_EQ(count("#8fb8de"), 8u);
  EXPECT_EQ(count("#8fce9b"), 8u);
  EXPECT_NE(svg.find("stage 1</text>"), std::string::npos);
}

TEST_F(TrainRanks, APlacementThatDoesNotFitIsRefused) {
  const auto refused = [&](int ranks, const Overrides& overrides) {
    RanksChild child(ranks, arguments("run", overrides));
    EXPECT_NE(child.wait(), 0);
    return child.errors();
  };
  EXPECT_NE(refused(2, {"mesh.pp=2", "mesh.split=[3]"}).find("mesh.split must be 2 rising numbers"),
            std::string::npos);
  EXPECT_NE(refused(1, {"mesh.chunks=2"}).find("mesh.chunks must be 1 without a pipeline"),
            std::string::npos);
}

TEST_F(TrainRanks, AMeshThatDoesNotFitIsRefusedOnce) {
  RanksChild child(3, arguments("run", {"mesh.pp=2"}));
  EXPECT_NE(child.wait(), 0);
  EXPECT_NE(child.errors().find("mesh.pp must divide the number of ranks = 3, got 2"),
            std::string::npos)
      << child.errors();
  RanksChild uneven(3, arguments("run", {}));
  EXPECT_NE(uneven.wait(), 0);
  EXPECT_NE(uneven.errors().find("batch.global_size must be a multiple"), std::string::npos)
      << uneven.errors();
  EXPECT_FALSE(std::filesystem::exists(folder("run") / "metrics.jsonl"));
}

}  // namespace
}  // namespace lectern
