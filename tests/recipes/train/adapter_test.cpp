// Training a low-rank adapter: from the base's own loss, through checkpoints, to reading.
#include "nn/adapter.h"

#include "autograd/ops/low_rank.h"
#include "nn/families.h"
#include "recipes/checkpoint/adapter_folder.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/checkpoint/peft.h"
#include "recipes/train/adapter_setup.h"
#include "recipes/train/trainer.h"
#include "tests/recipes/tiny_run.h"
#include "tests/testing.h"

namespace lectern {
namespace {

using testing::throws_with;
using testing::TinyData;
using Overrides = std::vector<std::string>;

/// A trained base, "base" and "base-bf16", and adapters on it.
class AdapterTraining : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    data_ = new TinyData;
    train(data_->recipe("base", {"steps=3"}), false);
    const LoadedModel base = load_model_folder(folder("base"));
    std::filesystem::create_directories(folder("base-bf16"));
    std::vector<std::pair<std::string, Tensor>> halves;
    for (const auto& [name, tensor] : base.model->store().file_order_state())
      halves.emplace_back(name, tensor.to(DType::bf16));
    save_safetensors(folder("base-bf16") / "model.safetensors", halves);
    for (const char* file : {"config.json", "tokenizer.json"})
      write_file(folder("base-bf16") / file, read_file(base.folder / file));
  }
  static void TearDownTestSuite() { delete data_; }

  static std::filesystem::path folder(const std::string& name) { return data_->folder() / name; }

  static Overrides kind(const Overrides& more, const std::string& base = "base") {
    Overrides out = {"stage=3", fmt::format("model.init=\"{}\"", folder(base).string()),
                     "optimizer.schedule=constant", "optimizer.learning_rate=1e-2", "lora.rank=2"};
    out.insert(out.end(), more.begin(), more.end());
    return out;
  }
  static std::vector<double> losses(const std::string& run) {
    std::vector<double> out;
    std::istringstream lines(read_file(folder(run) / "metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const auto record = nlohmann::json::parse(line);
      if (record.contains("loss")) out.push_back(record["loss"].get<double>());
    }
    return out;
  }
  static std::filesystem::path checkpoint(const std::string& run, int step) {
    return folder(run) / "checkpoints" / checkpoint_name(step);
  }
  static std::string bytes_of(const std::string& run, int step) {
    return read_file(checkpoint(run, step) / "adapter-00001-of-00001.safetensors");
  }

  static TinyData* data_;
};

TinyData* AdapterTraining::data_ = nullptr;

const char* const kEverything =
    "lora.targets=[\"decoder.attention\",\"decoder.mlp\",\"experts\",\"router\",\"head\","
    "\"lm_encoder\",\"tokenizer\",\"projector\"]";

TEST_F(AdapterTraining, TheFirstLossIsTheBasesBitForBit) {
  for (const char* dtype : {"fp32", "bf16"})
    for (const char* base : {"base", "base-bf16"}) {
      const std::string name = fmt::format("{}-{}", base, dtype);
      const std::string as = fmt::format("dtype={}", dtype);
      Overrides plain = {"stage=3", as, "steps=1",
                         fmt::format("model.init=\"{}\"", folder(base).string())};
      train(data_->recipe("plain-" + name, plain), false);
      train(data_->recipe("lora-" + name, kind({as, "steps=3", kEverything}, base)), false);
      EXPECT_EQ(losses("lora-" + name)[0], losses("plain-" + name)[0]) << name;
      EXPECT_NE(losses("lora-" + name)[2], losses("lora-" + name)[0]) << name;
    }
}

TEST_F(AdapterTraining, EveryStageAndEveryWayOfTrainingIsTheSame) {
  for (const int stage : {1, 2, 3}) {
    const std::string as = fmt::format("stage={}", stage);
    const auto run = [&](const std::string& name, const Overrides& more) {
      Overrides all = kind({as, kEverything, "encoder_cache.enabled=false"});
      all.insert(all.end(), more.begin(), more.end());
      const std::string whole = fmt::format("{}-{}", name, stage);
      train(data_->recipe(whole, all), false);
      return losses(whole);
    };
    const auto want = run("whole", {"batch.micro_batch=4"});
    for (const auto& [name, more] : std::vector<std::pair<std::string, Overrides>>{
             {"parts", {"batch.micro_batch=1"}},
             {"again", {"batch.micro_batch=4", "recompute=true"}}}) {
      const auto got = run(name, more);
      for (std::size_t i = 0; i < want.size(); ++i)
        EXPECT_NEAR(got[i], want[i], 2e-5 * want[i]) << name << " stage " << stage;
    }
  }
}

TEST_F(AdapterTraining, CheckpointsHoldTheAdapterAloneAndResumeToTheBit) {
  const Overrides dropped = kind({"lora.dropout=0.2", "steps=4"});
  train(data_->recipe("run", dropped), false);
  Overrides half = dropped;
  half.back() = "steps=2";
  train(data_->recipe("half", half), false);
  train(data_->recipe("half", dropped), true);
  EXPECT_EQ(bytes_of("half", 4), bytes_of("run", 4));
  EXPECT_EQ(losses("half"), losses("run"));
  for (const auto& entry : std::filesystem::directory_iterator(checkpoint("run", 4)))
    EXPECT_FALSE(entry.path().filename().string().starts_with("model")) << entry.path();
  // Dropout is of the samples: micro-batches run again in backward drop the same.
  Overrides again = dropped;
  again.push_back("recompute=true");
  train(data_->recipe("dropped-again", again), false);
  for (std::size_t i = 0; i < 4; ++i)
    EXPECT_NEAR(losses("dropped-again")[i], losses("run")[i], 2e-5 * losses("run")[i]);
  // The cache of a frozen encoder changes nothing.
  Overrides cached = dropped;
  cached.push_back("encoder_cache.enabled=false");
  train(data_->recipe("uncached", cached), false);
  EXPECT_EQ(bytes_of("uncached", 4), bytes_of("run", 4));
}

TEST_F(AdapterTraining, AnotherBaseOrShapeIsRefused) {
  train(data_->recipe("kept", kind({"steps=2"})), false);
  const auto resumed = [&](const Overrides& more, std::initializer_list<std::string_view> said) {
    return throws_with([&] { train(data_->recipe("kept", more), true); }, said);
  };
  EXPECT_TRUE(resumed(kind({"steps=3"}, "base-bf16"),
                      {"is an adapter of the weights in", "base-bf16", "holds others"}));
  EXPECT_TRUE(resumed(kind({"steps=3", "lora.rank=3"}), {"the first of rank 2", "of rank 3"}));
  Overrides plain = {"stage=3", "steps=3", kind({})[1]};
  EXPECT_TRUE(resumed(plain, {"holds an adapter, but the recipe trains the model"}));
  EXPECT_TRUE(
      throws_with([&] { load_model_folder(folder("base-bf16"), DType::f32, folder("kept")); },
                  {"kept", "is an adapter of the weights in", "holds others"}));
  EXPECT_EQ(train(data_->recipe("kept", kind({"steps=3"})), true).steps, 3);
}

TEST_F(AdapterTraining, BadTablesAreRefused) {
  const auto refused = [&](const Overrides& more, std::initializer_list<std::string_view> said) {
    return throws_with([&] { train(data_->recipe("refused", kind(more)), false); }, said);
  };
  EXPECT_TRUE(refused({"lora.rank=0"}, {"lora.rank", "from 1 to 4096"}));
  EXPECT_TRUE(refused({"lora.targets=[]"}, {"targets must name at least one part"}));
  EXPECT_TRUE(refused({"lora.targets=[\"decoder.atention\"]"},
                      {"\"decoder.atention\"; did you mean \"decoder.attention\"?"}));
  EXPECT_TRUE(refused({"lora.targets=[\"model.norm.\"]"}, {"lora.targets", "\"model.norm.\""}));
  EXPECT_TRUE(
      refused({"model.init=random"}, {"model.init must name the model that [lora] adapts"}));
  EXPECT_TRUE(refused({"model.init_sam=x"}, {"model.init_sam must be left out with [lora]"}));
  EXPECT_TRUE(refused({"lora.targets=[\"model.layers.*.mlp.experts.0.\"]"},
                      {"all experts of a layer must have pairs or none"}));
  EXPECT_FALSE(std::filesystem::exists(folder("refused") / "checkpoints"));
  EXPECT_TRUE(refused({"lora.targets=[\"tokenizer\"]", "encoder_cache.enabled=true"},
                      {"needs a frozen encoder", "model.sam_model"}));
}

TEST_F(AdapterTraining, ReadsAsTheMergedModel) {
  train(data_->recipe("merge", kind({kEverything, "steps=4"})), false);
  const LoadedModel adapted = load_model_folder(folder("merge"));  // names its base
  ASSERT_TRUE(adapted.adapter);
  const LoadedModel base = load_model_folder(folder("base"));
  const LoadedModel named = load_model_folder(folder("base"), DType::f32, folder("merge"));
  const auto model = base.model->config().make(0);
  const auto values = base.model->store().state(), merged = model->store().state();
  for (std::size_t i = 0; i < merged.size(); ++i) {
    const auto& [name, value] = values[i];
    merged[i].second.copy_from(adapted.adapter->merged(name, value));
  }
  Tensor ids = Tensor::empty({1, 6}, DType::i32);
  for (int i = 0; i < 6; ++i) ids.data<std::int32_t>()[i] = 5 + 3 * i;
  const auto logits = [&](const OcrModel& of) {
    const NoGrad off;
    ForwardContext context;
    SequenceLayout layout;
    layout.mask = MaskKind::causal;
    const Variable rows(of.decoder().embed_tokens(ids));
    return of.decoder().logits(of.decoder().forward(rows, layout, context)).value();
  };
  const Tensor want = logits(*model);
  EXPECT_TRUE(testing::near(logits(*adapted.model), want, 1e-4));
  EXPECT_TRUE(testing::near(logits(*named.model), want, 1e-4));
  EXPECT_FALSE(testing::near(logits(*base.model), want, 1e-2)) << "an adapter that does nothing";
}

TEST_F(AdapterTraining, GoesOnFromAnAdapter) {
  train(data_->recipe("first", kind({"steps=2"})), false);
  const std::string key = fmt::format("model.adapter=\"{}\"", folder("first").string());
  Overrides without = kind({key, "steps=1"});
  std::erase(without, "lora.rank=2");
  train(data_->recipe("second", without), false);
  train(data_->recipe("second-too", kind({key, "steps=1"})), false);
  EXPECT_EQ(bytes_of("second", 1), bytes_of("second-too", 1));
  EXPECT_LT(losses("second")[0], losses("first")[0]);
  EXPECT_TRUE(throws_with(
      [&] {
        train(data_->recipe("third", kind({key, "steps=1", "lora.rank=5"})), false);
      },
      {"[lora] must say what model.adapter has", "of rank 2", "of rank 5"}));
}

}  // namespace
}  // namespace lectern
