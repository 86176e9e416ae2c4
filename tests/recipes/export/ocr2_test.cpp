// Models written for other programs and read again.
#include "nn/ocr2/model.h"
#include "nn/weights.h"
#include "recipes/export/export.h"
#include "tests/recipes/tiny_run.h"

#include <set>

namespace lectern {
namespace {

using testing::throws_with;

LoadedModel tiny_model(const nlohmann::json& config = testing::tiny_config(144, 256)) {
  return {std::make_unique<Ocr2Model>(parse_ocr2_config(config, "config"), 5),
          testing::tiny_tokenizer(),
          {}};
}

std::set<std::string> entries(const std::filesystem::path& folder) {
  std::set<std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    out.insert(entry.path().filename().string());
  return out;
}

nlohmann::json read_json(const std::filesystem::path& path) {
  return parse_json(read_file(path), path.string());
}

TEST(Export, BothFormatsReadBackEqual) {
  const testing::TemporaryFolder folder;
  nlohmann::json config = testing::tiny_config(144, 256);
  config["lectern"]["prompt"] = "<image>\nRead.";
  const LoadedModel model = tiny_model(config);
  for (const char* format : {"hf", "original"}) {
    const auto target = folder.path() / format;
    const ExportReport report = export_model(model, format, target);
    EXPECT_EQ(report.folder, target);
    EXPECT_EQ(report.tensors, static_cast<std::int64_t>(model.model->store().state().size()));
    EXPECT_EQ(std::set<std::string>(report.files.begin(), report.files.end()), entries(target));
    const LoadedModel again = load_model_folder(target);
    const auto want = model.model->store().state(), got = again.model->store().state();
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < want.size(); ++i) {
      EXPECT_EQ(got[i].first, want[i].first);
      EXPECT_TRUE(testing::same_bits(got[i].second.contiguous(), want[i].second.contiguous()))
          << want[i].first;
    }
    // Prompts are as they were; who asks for special tokens gets the begin token of training.
    const std::string text = "<image>\np1w0 p2w1";
    auto ids = model.tokenizer.encode(text);
    EXPECT_EQ(again.tokenizer.encode(text), ids);
    ids.insert(ids.begin(), 0);
    EXPECT_EQ(again.tokenizer.encode(text, true), ids);
    // How the model wants to be asked comes back too, in either layout.
    EXPECT_EQ(again.model->config().reading.prompt, "<image>\nRead.");
    EXPECT_EQ(again.model->config().reading.global_size, 32);
    EXPECT_FALSE(again.model->config().reading.crop);
  }
  EXPECT_EQ(entries(folder.path()), (std::set<std::string>{"hf", "original"}));
}

TEST(Export, FilesThatOtherProgramsRead) {
  const testing::TemporaryFolder folder;
  const LoadedModel model = tiny_model();
  const auto hf = folder.path() / "hf", original = folder.path() / "original";
  export_model(model, "hf", hf);
  export_model(model, "original", original);
  EXPECT_EQ(entries(hf),
            (std::set<std::string>{"config.json", "generation_config.json", "model.safetensors",
                                   "processor_config.json", "special_tokens_map.json",
                                   "tokenizer.json", "tokenizer_config.json"}));
  EXPECT_EQ(read_json(hf / "config.json")["model_type"], "deepseek_ocr2");
  EXPECT_EQ(read_json(hf / "processor_config.json")["image_processor"]["image_mean"],
            nlohmann::json::parse("[0.5, 0.5, 0.5]"));
  EXPECT_EQ(read_json(hf / "tokenizer_config.json")["eos_token"], "<｜end▁of▁sentence｜>");
  EXPECT_EQ(read_json(hf / "generation_config.json")["eos_token_id"], 1);

  for (const auto& folder_of : {hf, original}) {
    const auto processor = read_json(folder_of / "tokenizer.json")["post_processor"];
    EXPECT_NE(processor.dump().find("TemplateProcessing"), std::string::npos) << folder_of;
  }

  EXPECT_EQ(read_json(original / "config.json")["model_type"], "deepseek_vl_v2");
  EXPECT_FALSE(read_json(original / "config.json")["language_config"].contains("architectures"));
  const auto index = read_json(original / "model.safetensors.index.json");
  const auto tensors = model.model->store().state();
  EXPECT_EQ(index["weight_map"].size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    ASSERT_TRUE(index["weight_map"].contains(name)) << name;
    EXPECT_TRUE(std::filesystem::exists(original / index["weight_map"][name].get<std::string>()));
  }
  EXPECT_EQ(index["metadata"]["total_size"], 4 * model.model->store().parameter_count());
}

TEST(Export, TransformersCountsTheTokensOfAViewAsWeDo) {
  const testing::TemporaryFolder folder;
  // (pixels, patch): the full-size model, and the tiny one, whose ratio has to be chosen.
  for (const auto& [pixels, patch] : {std::pair{1024, 16}, std::pair{32, 4}}) {
    nlohmann::json config = testing::tiny_config(144, 256);
    config["vision_config"]["sam_config"]["patch_size"] = patch;
    config["vision_config"]["sam_config"]["image_size"] = pixels / 4;
    config["lectern"]["global_size"] = pixels;
    const LoadedModel model = tiny_model(config);
    const auto target = folder.path() / fmt::format("view{}", pixels);
    export_model(model, "hf", target);
    const auto processor = read_json(target / "processor_config.json");
    const double side = std::ceil(processor["image_processor"]["size"]["height"].get<double>() /
                                  processor["patch_size"].get<double>() /
                                  processor["downsample_ratio"].get<double>());
    EXPECT_EQ(static_cast<std::int64_t>(side * side), model.model->config().decoder_tokens(pixels));
    EXPECT_EQ(processor["downsample_ratio"] == 4, pixels == 1024);
  }
}

TEST(Export, OurOwnFolderHoldsAnyModelInHalfTheBytes) {
  const testing::TemporaryFolder folder;
  nlohmann::json config = testing::tiny_config(4, 9);
  config["lectern"]["residual"] = "mhc";
  const LoadedModel model = tiny_model(config);
  const auto f32 = export_model(model, "lectern", folder.path() / "f32");
  const auto bf16 = export_model(model, "lectern", folder.path() / "bf16", {.dtype = DType::bf16});
  EXPECT_EQ(entries(bf16.folder),
            (std::set<std::string>{"config.json", "model.safetensors", "tokenizer.json"}));
  EXPECT_EQ(read_json(f32.folder / "config.json")["dtype"], "float32");
  EXPECT_EQ(read_json(bf16.folder / "config.json")["dtype"], "bfloat16");
  const auto size = [](const ExportReport& report) {
    return static_cast<double>(std::filesystem::file_size(report.folder / "model.safetensors"));
  };
  EXPECT_LT(size(bf16), 0.75 * size(f32));
  // Loaded again: matrices as rounded, the rest untouched.
  const LoadedModel again = load_model_folder(bf16.folder);
  EXPECT_EQ(again.model->config().residual.kind, ResidualKind::mhc);
  const auto want = model.model->store().state(), got = again.model->store().state();
  ASSERT_EQ(want.size(), got.size());
  bool any_rounded = false;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const Tensor a = want[i].second.contiguous(), b = got[i].second.contiguous();
    ASSERT_EQ(a.shape(), b.shape());
    for (std::int64_t j = 0; j < a.numel(); ++j) {
      const double x = a.data<float>()[j], y = b.data<float>()[j];
      if (a.ndim() < 2) {
        EXPECT_EQ(x, y) << want[i].first;
      }
      EXPECT_NEAR(x, y, std::abs(x) / 256) << want[i].first;  // 8 bits of mantissa
      any_rounded |= x != y;
    }
  }
  EXPECT_TRUE(any_rounded);
  EXPECT_TRUE(throws_with(
      [&] { export_model(tiny_model(), "hf", folder.path() / "x", {.dtype = DType::bf16}); },
      {"dtype must be f32", "bf16"}));
}

TEST(Export, AnExportCanBeExportedAgain) {
  const testing::TemporaryFolder folder;
  const auto one = folder.path() / "one", two = folder.path() / "two", own = folder.path() / "own";
  export_model(tiny_model(), "hf", one);
  const LoadedModel again = load_model_folder(one);
  export_model(again, "original", two);
  export_model(again, "lectern", own);
  for (const auto& each : {two, own})
    EXPECT_EQ(read_file(each / "tokenizer.json"), read_file(one / "tokenizer.json")) << each;
}

TEST(Export, OurOwnFolderKeepsTheTokenizerByteForByte) {
  const testing::TemporaryFolder folder;
  const LoadedModel model = tiny_model();
  export_model(model, "lectern", folder.path() / "own");
  EXPECT_EQ(read_file(folder.path() / "own" / "tokenizer.json"), model.tokenizer.json())
      << "shards know their tokenizer by its bytes";
}

TEST(Export, TakesAnEmptyFolderAndRefusesOthers) {
  const testing::TemporaryFolder folder;
  const LoadedModel model = tiny_model();
  std::filesystem::create_directories(folder.path() / "empty");
  EXPECT_NO_THROW(export_model(model, "hf", folder.path() / "empty"));
  EXPECT_TRUE(throws_with([&] { export_model(model, "original", folder.path() / "empty"); },
                          {"empty: must be a new or empty folder"}));
  write_file(folder.path() / "file", "x");
  EXPECT_TRUE(throws_with([&] { export_model(model, "hf", folder.path() / "file"); },
                          {"file: must be a new or empty folder"}));
  EXPECT_EQ(entries(folder.path()), (std::set<std::string>{"empty", "file"}));
  EXPECT_EQ(read_json(folder.path() / "empty" / "config.json")["model_type"], "deepseek_ocr2");
  EXPECT_TRUE(
      throws_with([&] { export_model(model, "onnx", folder.path() / "x"); },
                  {"--format", "hf, original, gguf, encoder, lectern, peft, gguf-lora", "onnx"}));
}

TEST(Export, RefusesWhatTheFormatCannotHold) {
  const testing::TemporaryFolder folder;
  const LoadedModel small = tiny_model(testing::tiny_config(4, 9));
  EXPECT_TRUE(throws_with([&] { export_model(small, "hf", folder.path() / "out"); },
                          {"query tables of 144 and 256 rows only", "4 and 9"}));
  nlohmann::json raster = testing::tiny_config(144, 256);
  raster["lectern"]["decoder_reads"] = "visual";
  const LoadedModel visual = tiny_model(raster);
  for (const std::string format : {"hf", "original"})
    EXPECT_TRUE(throws_with([&] { export_model(visual, format, folder.path() / "out"); },
                            {"visual tokens", "lectern.decoder_reads = \"visual\""}));
  nlohmann::json config = testing::tiny_config(144, 256);
  config["text_config"]["head_dim"] = 8;
  const LoadedModel narrow = tiny_model(config);
  EXPECT_TRUE(throws_with([&] { export_model(narrow, "original", folder.path() / "out"); },
                          {"original layout", "head_dim"}));
  EXPECT_TRUE(entries(folder.path()).empty()) << "something was left behind";
  EXPECT_NO_THROW(export_model(narrow, "hf", folder.path() / "out"));
}

TEST(Export, NothingIsLeftWhenWritingFails) {
  const testing::TemporaryFolder folder;
  const LoadedModel model = tiny_model();
  write_file(folder.path() / "file", "x");
  EXPECT_TRUE(throws_with([&] { export_model(model, "hf", folder.path() / "file" / "below"); },
                          {"below", "cannot write"}));
  // A tokenizer that does not fit the model is noticed when everything is read back.
  LoadedModel wrong = tiny_model();
  nlohmann::json config = testing::tiny_config(144, 256);
  config["image_token_id"] = 5;
  wrong.model = std::make_unique<Ocr2Model>(parse_ocr2_config(config, "config"), 5);
  EXPECT_TRUE(throws_with([&] { export_model(wrong, "hf", folder.path() / "out"); },
                          {"tokenizer.json", "<image> must have id 5"}));
  EXPECT_EQ(entries(folder.path()), (std::set<std::string>{"file"}));
}

TEST(ModelFolder, AConfigurationThatAsksForMoreThanTheWeightsIsRefusedEarly) {
  const testing::TemporaryFolder folder;
  const LoadedModel model = tiny_model();
  export_model(model, "hf", folder.path() / "out");
  auto config = read_json(folder.path() / "out" / "config.json");
  config["text_config"]["intermediate_size"] = 1 << 30;  // 400 GB of weights
  write_file(folder.path() / "out" / "config.json", config.dump());
  EXPECT_TRUE(throws_with([&] { load_model_folder(folder.path() / "out"); },
                          {"out", "*.safetensors must hold", "parameters of config.json"}));
}

TEST(ModelFolder, WeightsInAnotherFormatAreNamed) {
  const testing::TemporaryFolder folder;
  const auto out = folder.path() / "out";
  export_model(tiny_model(), "hf", out);
  std::filesystem::rename(out / "model.safetensors", out / "pytorch_model.bin");
  EXPECT_TRUE(throws_with([&] { load_model_folder(out); },
                          {out.string(), "weights must be in model.safetensors",
                           "got pytorch_model.bin", "save_file"}));
  write_file(out / "adapter_model.safetensors", "small");
  EXPECT_TRUE(throws_with([&] { load_model_folder(out); },
                          {"got adapter_model.safetensors", "merge it into its base model"}));
  for (const char* file : {"pytorch_model.bin", "adapter_model.safetensors"})
    std::filesystem::remove(out / file);
  EXPECT_TRUE(throws_with([&] { load_model_folder(out); },
                          {out.string(), "must have model.safetensors", "got neither"}));
}

TEST(ModelFolder, TokenizersThatDoNotFitAreNamed) {
  const Tokenizer& tokenizer = testing::tiny_tokenizer();
  Ocr2Config config = parse_ocr2_config(testing::tiny_config(), "config");
  EXPECT_NO_THROW(check_tokenizer(tokenizer, config, "t.json"));
  config.image_token_id = 4;
  EXPECT_TRUE(throws_with([&] { check_tokenizer(tokenizer, config, "t.json"); },
                          {"t.json: token <image> must have id 4 (image_token_id), got 3"}));
  config.image_token_id = 3;
  config.decoder.eos_token_id = 287;
  EXPECT_TRUE(throws_with([&] { check_tokenizer(tokenizer, config, "t.json"); },
                          {"t.json: must have a token with id 287 (text_config.eos_token_id)"}));
  config.decoder.eos_token_id = 1;
  config.decoder.vocab_size = 40;
  EXPECT_TRUE(throws_with([&] { check_tokenizer(tokenizer, config, "t.json"); },
                          {"t.json: ids must be below text_config.vocab_size 40, got"}));
}

}  // namespace
}  // namespace lectern
