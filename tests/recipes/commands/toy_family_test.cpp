// The door for model families opens: a family that this program has never seen (toy_family.cpp)
// goes through the same commands as any other.
#include "tests/distributed/mpirun.h"
#include "tests/recipes/tiny_run.h"

#include <gtest/gtest.h>

namespace lectern {
namespace {

using testing::Child;
using testing::TinyData;

class ToyFamily : public ::testing::Test {
 protected:
  /// Runs build/tests/toy_lectern; what it printed.
  std::string run(const std::vector<std::string>& arguments, int ranks = 1) {
    const std::string lectern = testing::lectern_binary();
    const auto toy = std::filesystem::path(lectern).parent_path() / "tests" / "toy_lectern";
    ::setenv("LECTERN_BINARY", toy.c_str(), 1);
    Child child(arguments, "", ranks > 1 ? testing::mpirun(ranks) : std::vector<std::string>{});
    const int status = child.wait();
    ::setenv("LECTERN_BINARY", lectern.c_str(), 1);
    EXPECT_EQ(status, 0) << child.errors();
    return child.out();
  }
  std::vector<std::string> train(const std::string& name,
                                 const std::vector<std::string>& more = {}) {
    std::vector<std::string> out = {"train", data_.recipe_file(name).string()};
    out.insert(out.end(), more.begin(), more.end());
    return out;
  }
  std::map<std::string, Tensor> weights(const std::string& name) const {
    return testing::tensors_of(data_.folder() / name / "checkpoints" / "step-000004");
  }

  void SetUp() override {
    nlohmann::json config = testing::tiny_config();
    config["model_type"] = "toy";
    config["patch_size"] = 8;
    config.erase("vision_config");
    write_file(data_.config(), config.dump());
  }

  TinyData data_;
};

TEST_F(ToyFamily, TrainsResumesAndRunsOnTwoRanks) {
  run(train("whole"));
  run(train("parts", {"--set", "steps=2"}));
  run(train("parts", {"--resume"}));
  EXPECT_EQ(testing::first_difference(weights("whole"), weights("parts")), "");
  for (const char* mesh : {"mesh.pp=1", "mesh.pp=2", "mesh.ep=2"}) {
    SCOPED_TRACE(mesh);
    run(train(mesh, {"--set", mesh, "--set", "batch.micro_batch=2"}), 2);
    const auto got = weights(mesh);
    for (const auto& [name, tensor] : weights("whole"))
      EXPECT_TRUE(testing::near(got.at(name), tensor, 1e-5)) << name;
  }
}

TEST_F(ToyFamily, IsEvaluatedPlannedAndExported) {
  run(train("run", {"--set", "stage=3"}));  // with the encoder, all of it a projector, frozen
  const std::string model = (data_.folder() / "run").string();
  EXPECT_NE(run({"eval", "--checkpoint", model, "--shards", data_.shards().string(), "--level",
                 "word", "--samples", "2", "--max-tokens", "4"})
                .find("character error rate"),
            std::string::npos);
  const auto out = data_.folder() / "exported";
  run({"export", "--checkpoint", model, "--format", "lectern", "--out", out.string()});
  const auto config = parse_json(read_file(out / "config.json"), "config.json");
  EXPECT_EQ(config["model_type"], "toy");
  EXPECT_EQ(config["patch_size"], 8);
  EXPECT_EQ(testing::tensors_of(out).size(), weights("run").size());
  EXPECT_NE(
      run({"plan", data_.recipe_file("plan").string(), "--ranks", "2"}).find("patch projector"),
      std::string::npos);
}

}  // namespace
}  // namespace lectern
