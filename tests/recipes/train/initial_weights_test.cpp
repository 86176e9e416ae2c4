// Starting weights from files of other models: SAM-base in both of its layouts, Qwen2-0.5B, and
// parts of our own checkpoints; and what a run refuses to begin with.
#include "recipes/train/initial_weights.h"

#include "core/io/safetensors.h"
#include "nn/weights.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/train/trainer.h"
#include "tests/nn/tiny_model.h"
#include "tests/recipes/tiny_run.h"

#include <map>

namespace lectern {
namespace {

using testing::throws_with;
using Named = std::vector<std::pair<std::string, Tensor>>;

bool is_sam(const std::string& name) {
  return name.starts_with("model.sam_model.") && !name.starts_with("model.sam_model.net_");
}
bool is_qwen2(const std::string& name) {
  return name.starts_with("model.qwen2_model.model.model.");
}

class InitialWeights : public ::testing::Test {
 protected:
  InitialWeights()
      : made_(testing::make_model(testing::tiny_model_config(), 1)),
        other_(testing::make_model(made_->config(), 2)),
        source_(*made_),
        target_(*other_) {
    testing::fill_weights(source_, 5);
    for (const auto& [name, tensor] : target_.store().state()) before_[name] = tensor.clone();
  }

  std::filesystem::path write(const Named& tensors) const {
    const auto path = folder_.path() / "other.safetensors";
    save_safetensors(path, tensors);
    return path;
  }
  /// Tensors that `taken` names are the source's, all others as they were.
  void expect_taken(const std::function<bool(const std::string&)>& taken) {
    const Named want = source_.store().state();
    for (std::size_t i = 0; const auto& [name, tensor] : target_.store().state()) {
      const Tensor& expected = taken(name) ? want[i].second : before_.at(name);
      EXPECT_TRUE(testing::near(tensor, expected, 0)) << name;
      ++i;
    }
  }

  std::unique_ptr<OcrModel> made_, other_;
  OcrModel &source_, &target_;
  std::map<std::string, Tensor> before_;
  testing::TemporaryFolder folder_;
};

TEST_F(InitialWeights, SegmentAnythingLayout) {
  Named tensors = {
      {"prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", Tensor::zeros({2, 4})},
      {"mask_decoder.iou_token.weight", Tensor::zeros({1, 8})}};
  for (const auto& [name, tensor] : source_.store().state())
    if (is_sam(name)) tensors.emplace_back("image_encoder." + name.substr(16), tensor);
  EXPECT_EQ(tensors[2].first, "image_encoder.blocks.0.attn.proj.bias");
  target_.load_pretrained("sam", write(tensors));
  expect_taken(is_sam);
}

TEST_F(InitialWeights, TransformersSamLayout) {
  const std::vector<std::pair<std::string, std::string>> names = {
      {"patch_embed.proj.", "patch_embed.projection."},
      {"blocks.", "layers."},
      {".norm1.", ".layer_norm1."},
      {".norm2.", ".layer_norm2."},
      {"neck.0.", "neck.conv1."},
      {"neck.1.", "neck.layer_norm1."},
      {"neck.2.", "neck.conv2."},
      {"neck.3.", "neck.layer_norm2."}};
  Named tensors = {{"mask_decoder.iou_token.weight", Tensor::zeros({1, 8})}};
  for (const auto& [name, tensor] : source_.store().state()) {
    if (!is_sam(name)) continue;
    std::string tail = name.substr(16);
    for (const auto& [from, to] : names)
      if (const auto at = tail.find(from); at != std::string::npos)
        tail.replace(at, from.size(), to);
    tensors.emplace_back("vision_encoder." + tail, tensor);
  }
  target_.load_pretrained("sam", write(tensors));
  expect_taken(is_sam);
}

TEST_F(InitialWeights, Qwen2Layout) {
  Named tensors = {{"model.embed_tokens.weight", Tensor::zeros({11, 8})},
                   {"lm_head.weight", Tensor::zeros({11, 8})}};
  for (const auto& [name, tensor] : source_.store().state())
    if (is_qwen2(name)) tensors.emplace_back("model." + name.substr(30), tensor);
  EXPECT_EQ(tensors[2].first, "model.layers.0.input_layernorm.weight");
  target_.load_pretrained("qwen2", write(tensors));
  expect_taken(is_qwen2);
}

TEST_F(InitialWeights, AnotherSizeOrAMissingTensorIsNamed) {
  Named tensors;
  for (const auto& [name, tensor] : source_.store().state())
    if (is_sam(name)) tensors.emplace_back("image_encoder." + name.substr(16), tensor);
  Named less(tensors.begin() + 1, tensors.end());
  EXPECT_TRUE(throws_with([&] { target_.load_pretrained("sam", write(less)); },
                          {"other.safetensors", "has no tensor model.sam_model.blocks.0.attn."}));
  for (auto& [name, tensor] : tensors)
    if (name == "image_encoder.pos_embed") tensor = Tensor::zeros({1, 5, 5, 8});
  EXPECT_TRUE(
      throws_with([&] { target_.load_pretrained("sam", write(tensors)); },
                  {"tensor image_encoder.pos_embed must be [1, 10, 10, 8]", "[1, 5, 5, 8]"}));
  expect_taken([](const std::string&) { return false; });
}

TEST_F(InitialWeights, PartsOfOurOwnCheckpointsInTheirOrder) {
  const auto save = [&](const std::string& name, const OcrModel& model) {
    const auto path = folder_.path() / name;
    std::filesystem::create_directories(path);
    save_model(model, path);
    return path.string();
  };
  const auto other_owner = testing::make_model(source_.config(), 3);
  OcrModel& other = *other_owner;
  testing::fill_weights(other, 6);
  // The encoder of one, the decoder of another that knows only "other"; SAM's file comes last.
  ModelRecipe recipe;
  recipe.init = save("whole", other);
  recipe.init_encoder = save("encoder", source_);
  load_initial_weights(recipe, target_);
  const Named a = source_.store().state(), b = other.store().state();
  for (std::size_t i = 0; const auto& [name, tensor] : target_.store().state()) {
    const bool encoder =
        name.starts_with("model.sam_model.") || name.starts_with("model.qwen2_model.") ||
        name.starts_with("model.projector.") || name.starts_with("model.view_seperator");
    EXPECT_TRUE(testing::near(tensor, encoder ? a[i].second : b[i].second, 0)) << name;
    ++i;
  }
  recipe.init = "random";
  recipe.init_encoder.clear();
  recipe.init_decoder = save("decoder", source_);
  load_initial_weights(recipe, target_);
  for (std::size_t i = 0; const auto& [name, tensor] : target_.store().state())
    EXPECT_TRUE(testing::near(tensor, a[i++].second, 0)) << name;
}

/// A plain Qwen2 goes into an encoder with hyper-connections, whose mappings stay as they are.
TEST_F(InitialWeights, Qwen2IntoResidualStreams) {
  Named tensors;
  for (const auto& [name, tensor] : source_.store().state())
    if (is_qwen2(name)) tensors.emplace_back("model." + name.substr(30), tensor);
  testing::AnyConfig config = source_.config();
  config->residual.kind = ResidualKind::mhc;
  const auto streams_owner = testing::make_model(config, 2);
  OcrModel& streams = *streams_owner;
  const auto fresh_owner = testing::make_model(config, 2);
  const OcrModel& fresh = *fresh_owner;
  streams.load_pretrained("qwen2", write(tensors));
  std::map<std::string, Tensor> from;
  for (const auto& [name, tensor] : source_.store().state()) from[name] = tensor;
  for (std::size_t i = 0; const auto& [name, tensor] : streams.store().state()) {
    const bool taken = is_qwen2(name) && name.find("hc") == std::string::npos;
    EXPECT_TRUE(testing::near(tensor, taken ? from.at(name) : fresh.store().state()[i].second, 0))
        << name;
    ++i;
  }
}

/// Encoder and decoder of checkpoints in another convention: only what was loaded is converted.
TEST_F(InitialWeights, PartsInAnotherConventionAreConverted) {
  const auto model_of = [&](StreamConvention convention, std::uint64_t seed) {
    testing::AnyConfig config = source_.config();
    config->residual = {.kind = ResidualKind::mhc, .convention = convention};
    auto model = testing::make_model(config, seed);
    testing::fill_weights(*model, seed);
    return model;
  };
  const auto stored = model_of(StreamConvention::paper, 4);
  const auto ours = model_of(StreamConvention::deepseek_v4, 5);
  std::map<std::string, Tensor> before;
  for (const auto& [name, tensor] : ours->store().state()) before[name] = tensor.clone();
  const auto folder = folder_.path() / "paper";
  std::filesystem::create_directories(folder);
  save_model(*stored, folder);
  ModelRecipe recipe;
  recipe.init = "random";
  recipe.init_encoder = folder.string();
  load_initial_weights(recipe, *ours);
  const std::vector<std::string>& parts = ours->config().parts().encoder;
  convert_convention(stored->store(), StreamConvention::paper, StreamConvention::deepseek_v4);
  for (std::size_t i = 0; const auto& [name, tensor] : ours->store().state()) {
    const bool encoder = std::any_of(parts.begin(), parts.end(),
                                     [&](const auto& prefix) { return name.starts_with(prefix); });
    EXPECT_TRUE(
        testing::near(tensor, encoder ? stored->store().state()[i].second : before.at(name), 0))
        << name;
    ++i;
  }
}

TEST(TrainFrom, RefusesWhatDoesNotFitTogether) {
  using testing::set;
  const testing::TinyData data;
  const auto refused = [&](const std::string& run, const std::vector<std::string>& overrides,
                           std::initializer_list<std::string_view> parts) {
    return throws_with([&] { train(data.recipe(run, overrides), false); }, parts);
  };
  EXPECT_TRUE(refused("init", {set("model.init", data.folder() / "none")},
                      {"none", "must be a checkpoint or run folder"}));
  EXPECT_TRUE(refused("freeze", {"freeze=[\"model.vision.\"]"},
                      {"freeze: no parameter's name starts with model.vision."}));
  EXPECT_TRUE(refused("config", {set("model.config", data.folder() / "none.json")}, {"none.json"}));
  EXPECT_TRUE(refused("sources", {"data.shards=[\"/nowhere\"]"}, {"/nowhere"}));

  nlohmann::json other = testing::tiny_config();
  other["image_token_id"] = 7;
  write_file(data.folder() / "other.json", other.dump());
  EXPECT_TRUE(refused("image", {set("model.config", data.folder() / "other.json")},
                      {"token <image> must have id 7", "got 3"}));
  other = testing::tiny_config();
  other["text_config"]["vocab_size"] = 100;
  write_file(data.folder() / "other.json", other.dump());
  EXPECT_TRUE(refused("vocabulary", {set("model.config", data.folder() / "other.json")},
                      {"ids must be below text_config.vocab_size 100"}));
  for (const char* run : {"config", "sources", "image", "vocabulary"})
    EXPECT_FALSE(std::filesystem::exists(data.folder() / run)) << run << ": a typo left a folder";
  other = testing::tiny_config();
  other["text_config"]["hidden_size"] = 64;
  write_file(data.folder() / "other.json", other.dump());
  train(data.recipe("small", {"steps=1"}), false);
  EXPECT_TRUE(refused("shape",
                      {set("model.config", data.folder() / "other.json"),
                       set("model.init", data.folder() / "small")},
                      {"small", "tensor", "must be", "got"}));
}

}  // namespace
}  // namespace lectern
