// Inputs and lectern's outputs for them, in one file that tests/oracle/export_check.py compares
// with transformers.
//
//   export_case --tiny FOLDER                       makes a small model folder with random weights
//   export_case --checkpoint FOLDER --out FILE      runs any model folder or checkpoint
//
// The file holds in.* (ids, labels, mask i32; normalised pixels f32), logit_rows [n, 2] (picture,
// position) with logits_at_rows [n, V], the mean loss, and what greedy decoding of the first
// picture gives after greedy_prompt_len tokens.
#include "core/io/safetensors.h"
#include "core/random.h"
#include "data/images/views.h"
#include "nn/families.h"
#include "nn/generation/generation.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/read/reader.h"
#include "tests/recipes/tiny_run.h"

#include <CLI/CLI.hpp>

namespace lectern {
namespace {

struct Options {
  std::string tiny, checkpoint, out;
  std::int64_t text = 24, tokens = 16;
  std::uint64_t seed = 1;
};

void write_tiny_model(const std::filesystem::path& folder, std::uint64_t seed) {
  nlohmann::json json = testing::tiny_config(144, 256);
  json["lectern"].update({{"crop", true}, {"prompt", "<image>\nRead."}});
  const auto made = parse_model_config(json, "tiny")->make(seed);
  OcrModel& model = *made;
  // Norms, biases and position embeddings away from ones and zeros: a swap would show.
  for (const auto& [name, tensor] : model.store().state())
    if (tensor.ndim() < 2 || name.find("pos") != std::string::npos)
      Random(seed, name).fill_normal(tensor, tensor.ndim() < 2 ? 0.8 : 0.0, 0.3);
  // Tokens far apart: greedy text then does not end in one token over and over.
  for (const auto& [name, tensor] : model.store().state())
    if (name == "model.embed_tokens.weight" || name == "lm_head.weight")
      Random(seed, name).fill_normal(tensor, 0.0, 1.0);
  std::filesystem::create_directories(folder);
  save_model(model, folder);
  testing::tiny_tokenizer().save(folder / "tokenizer.json");
}

/// Two pictures, the first with two tiles where the model crops; the shorter row padded.
struct Case {
  ModelInput input;
  Tensor mask;
  std::int64_t prompt_tokens = 0;  // of the first row
};

Case make_case(const LoadedModel& loaded, const Options& options) {
  constexpr std::int64_t kPictures = 2;
  const ModelConfig& config = loaded.model->config();
  const ViewOptions views = view_options(config);
  const auto prompt = loaded.tokenizer.encode(
      std::string_view(config.reading.prompt).substr(std::string_view("<image>").size()));
  const std::int64_t tiles = views.crop ? 2 : 0;
  const std::int64_t rows = image_token_count(views, {static_cast<int>(tiles), tiles > 0 ? 1 : 0});
  const auto prompt_tokens = static_cast<std::int64_t>(prompt.size());
  const std::int64_t length = 1 + rows + prompt_tokens + options.text + 1;

  Case out;
  out.prompt_tokens = 1 + rows + prompt_tokens;
  const auto pad = static_cast<double>(config.decoder.pad_token_id);
  out.input.input_ids = Tensor::full({kPictures, length}, pad, DType::i32);
  out.input.labels = Tensor::full({kPictures, length}, -100, DType::i32);
  out.mask = Tensor::zeros({kPictures, length}, DType::i32);
  Random random(options.seed, "text");
  for (std::int64_t i = 0; i < kPictures; ++i) {
    const std::int64_t own = i == 0 ? rows : image_token_count(views, {});
    std::int64_t at = i * length;
    const auto put = [&](std::int64_t id, bool trained) {
      out.input.input_ids.data<std::int32_t>()[at] = static_cast<std::int32_t>(id);
      out.input.labels.data<std::int32_t>()[at] = trained ? static_cast<std::int32_t>(id) : -100;
      out.mask.data<std::int32_t>()[at++] = 1;
    };
    put(config.decoder.bos_token_id, false);
    for (std::int64_t row = 0; row < own; ++row) put(config.image_token_id, false);
    for (const std::int32_t id : prompt) put(id, false);
    for (std::int64_t t = 0; t < options.text; ++t) {
      auto id = static_cast<std::int64_t>(
          random.below(static_cast<std::uint64_t>(loaded.tokenizer.id_limit())));
      if (id == config.image_token_id) ++id;
      put(id, true);
    }
    put(config.decoder.eos_token_id, true);
  }
  const auto pixels = [&](const char* name, std::int64_t count, std::int64_t size) {
    Tensor tensor = Tensor::empty({count, 3, size, size});
    Random(options.seed, name).fill_normal(tensor, 0.2, 0.6);
    return tensor;
  };
  out.input.pixel_values = pixels("global", kPictures, views.global_size);
  if (tiles > 0) out.input.pixel_values_local = pixels("local", tiles, views.tile_size);
  out.input.num_local_patches = {tiles, 0};
  return out;
}

/// (picture, position) of every position that predicts a trained token.
Tensor trained_rows(const Tensor& labels) {
  std::vector<std::int32_t> rows;
  const std::int64_t length = labels.dim(1);
  for (std::int64_t b = 0; b < labels.dim(0); ++b)
    for (std::int64_t t = 0; t + 1 < length; ++t)
      if (labels.data<std::int32_t>()[b * length + t + 1] != -100) {
        rows.push_back(static_cast<std::int32_t>(b));
        rows.push_back(static_cast<std::int32_t>(t));
      }
  Tensor out = Tensor::empty({static_cast<std::int64_t>(rows.size()) / 2, 2}, DType::i32);
  std::copy(rows.begin(), rows.end(), out.data<std::int32_t>());
  return out;
}

Tensor logits_at(const OcrModel& model, const ModelInput& input, const Tensor& rows) {
  ForwardContext context;
  const Tensor hidden =
      model.decoder()
          .forward(model.embed(input, model.encode(input, context)), causal_layout(input), context)
          .value();
  const std::int64_t width = hidden.dim(2);
  Tensor chosen = Tensor::empty({rows.dim(0), width});
  for (std::int64_t i = 0; i < rows.dim(0); ++i) {
    const std::int32_t* at = rows.data<std::int32_t>() + 2 * i;
    const float* row = hidden.data<float>() + (at[0] * hidden.dim(1) + at[1]) * width;
    std::copy_n(row, width, chosen.data<float>() + i * width);
  }
  return model.decoder().logits(Variable(chosen)).value();
}

Tensor greedy(const OcrModel& model, const Case& one, std::int64_t tokens) {
  ModelInput prompt;
  prompt.input_ids = one.input.input_ids.slice(0, 0, 1).slice(1, 0, one.prompt_tokens).contiguous();
  prompt.pixel_values = one.input.pixel_values.slice(0, 0, 1).contiguous();
  prompt.pixel_values_local = one.input.pixel_values_local;  // all tiles are the first picture's
  prompt.num_local_patches = {one.input.num_local_patches[0]};
  GenerationArgs args;
  args.max_new_tokens = tokens;
  const auto made = generate(model, prompt, args).at(0);
  Tensor out = Tensor::empty({static_cast<std::int64_t>(made.size())}, DType::i32);
  std::copy(made.begin(), made.end(), out.data<std::int32_t>());
  return out;
}

void write_case(const Options& options) {
  const NoGrad off;
  const LoadedModel loaded = load_model_folder(options.checkpoint);
  const Case one = make_case(loaded, options);
  ForwardContext context;
  const ModelLoss loss = loaded.model->loss(one.input, context);
  const Tensor rows = trained_rows(one.input.labels);
  Tensor patches = Tensor::empty({2}, DType::i32);
  for (int i = 0; i < 2; ++i)
    patches.data<std::int32_t>()[i] =
        static_cast<std::int32_t>(one.input.num_local_patches[static_cast<std::size_t>(i)]);
  NamedTensors tensors = {
      {"in.input_ids", one.input.input_ids},
      {"in.attention_mask", one.mask},
      {"in.labels", one.input.labels},
      {"in.pixel_values", one.input.pixel_values},
      {"in.num_local_patches", patches},
      {"logit_rows", rows},
      {"logits_at_rows", logits_at(*loaded.model, one.input, rows)},
      {"loss", Tensor::full({1}, loss.loss_sum.value().item() / static_cast<double>(loss.count))},
      {"greedy_tokens", greedy(*loaded.model, one, options.tokens)},
      {"greedy_prompt_len", Tensor::full({1}, static_cast<double>(one.prompt_tokens), DType::i32)}};
  if (one.input.pixel_values_local.defined())
    tensors.emplace_back("in.pixel_values_local", one.input.pixel_values_local);
  save_safetensors(options.out, tensors);
}

}  // namespace
}  // namespace lectern

int main(int argc, char** argv) {
  CLI::App app{"inputs and outputs of a lectern model for tests/oracle/export_check.py"};
  lectern::Options options;
  app.add_option("--tiny", options.tiny, "folder to make a small random model in");
  app.add_option("--checkpoint", options.checkpoint, "model, checkpoint or run folder to run");
  app.add_option("--out", options.out, "case file to write");
  app.add_option("--text", options.text, "text tokens a picture")->check(CLI::Range(1, 100000));
  app.add_option("--tokens", options.tokens, "greedy tokens")->check(CLI::Range(1, 100000));
  app.add_option("--seed", options.seed, "of weights, pixels and text");
  CLI11_PARSE(app, argc, argv);
  try {
    if (!options.tiny.empty()) lectern::write_tiny_model(options.tiny, options.seed);
    if (!options.checkpoint.empty()) lectern::write_case(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "export_case: %s\n", error.what());
    return 1;
  }
  return 0;
}
