// The part before the decoder, alone.
#include "nn/ocr2/model.h"
#include "recipes/export/export.h"
#include "tests/recipes/tiny_run.h"

#include <set>

namespace lectern {
namespace {

using testing::throws_with;

LoadedModel model_with_encoder(const nlohmann::json& config) {
  return {std::make_unique<Ocr2Model>(parse_ocr2_config(config, "config"), 5),
          testing::tiny_tokenizer(),
          {}};
}

bool stands_before_decoder(const std::string& name) {
  for (const char* prefix :
       {"model.sam_model.", "model.qwen2_model.", "model.projector.", "model.view_seperator"})
    if (name.starts_with(prefix)) return true;
  return false;
}

TEST(EncoderExport, HoldsEverythingBeforeTheDecoderAndNothingElse) {
  const testing::TemporaryFolder folder;
  const LoadedModel model = model_with_encoder(testing::tiny_config(144, 256));
  const ExportReport report = export_model(model, "encoder", folder.path() / "e");
  const SafetensorsFile file = SafetensorsFile::open(folder.path() / "e" / "model.safetensors");
  std::int64_t count = 0;
  for (const auto& [name, value] : model.model->store().state()) {
    ASSERT_EQ(file.contains(name), stands_before_decoder(name)) << name;
    if (!stands_before_decoder(name)) continue;
    EXPECT_TRUE(testing::same_bits(file.get(name), value.contiguous())) << name;
    ++count;
  }
  EXPECT_GT(count, 0);
  EXPECT_EQ(report.tensors, count);
  EXPECT_EQ(report.files, (std::vector<std::string>{"README.md", "config.json", "model.safetensors",
                                                    "processor_config.json"}));
  EXPECT_TRUE(throws_with([&] { load_model_folder(folder.path() / "e"); }, {"config.json"}))
      << "a model it is not";
}

TEST(EncoderExport, RoundsMatricesWhenAsked) {
  const testing::TemporaryFolder folder;
  const LoadedModel model = model_with_encoder(testing::tiny_config(144, 256));
  export_model(model, "encoder", folder.path() / "e", {.dtype = DType::bf16});
  const SafetensorsFile file = SafetensorsFile::open(folder.path() / "e" / "model.safetensors");
  EXPECT_EQ(file.dtype_of("model.projector.layers.weight"), DType::bf16);
  EXPECT_EQ(file.dtype_of("model.projector.layers.bias"), DType::f32);
}

TEST(EncoderExport, TheCardSaysTheModelsOwnSizes) {
  const testing::TemporaryFolder folder;
  const auto card = [&](const nlohmann::json& config, const char* name) {
    export_model(model_with_encoder(config), "encoder", folder.path() / name);
    return read_file(folder.path() / name / "README.md");
  };
  // Views of 32 pixels give 2 x 2 visual tokens, which 144 queries stand for: 144 rows of 32.
  const std::string plain = card(testing::tiny_config(144, 256), "plain");
  for (const char* part : {"global, 32 x 32 | 4 | 144 |", "width 24 to 32", "145 rows of 32",
                           "`model.view_seperator` [32]", "DeepseekOcr2Model"})
    EXPECT_NE(plain.find(part), std::string::npos) << part;
  EXPECT_EQ(plain.find("a tile"), std::string::npos);
  // What transformers cannot hold is not shown with it.
  nlohmann::json config = testing::tiny_config(4, 9);
  config["lectern"]["crop"] = true;
  const std::string own = card(config, "own");
  for (const char* part : {"global, 32 x 32 | 4 | 4 |", "a tile, 32 x 32 | 4 | 4 |", "5 rows of 32",
                           "cannot hold these"})
    EXPECT_NE(own.find(part), std::string::npos) << part;
  EXPECT_EQ(own.find("DeepseekOcr2Model"), std::string::npos);
}

TEST(EncoderExport, HyperConnectionsAreRefused) {
  const testing::TemporaryFolder folder;
  nlohmann::json config = testing::tiny_config(144, 256);
  config["lectern"]["residual"] = "mhc";
  EXPECT_TRUE(
      throws_with([&] { export_model(model_with_encoder(config), "encoder", folder.path() / "e"); },
                  {"hyper-connections", "lectern.residual"}));
}

}  // namespace
}  // namespace lectern
