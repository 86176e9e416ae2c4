#include "recipes/model_folder.h"

#include "core/file.h"
#include "core/safetensors.h"
#include "nn/ocr2/weights.h"
#include "recipes/checkpoint_folder.h"

#include <nlohmann/json.hpp>

namespace lectern {

std::filesystem::path resolve_model_folder(const std::filesystem::path& path) {
  if (std::filesystem::exists(path / "config.json")) return path;
  return resolve_checkpoint(path);
}

void check_tokenizer(const Tokenizer& tokenizer, const Ocr2Config& config,
                     const std::string& name) {
  if (tokenizer.id_limit() > config.text.vocab_size)
    fail<ConfigError>(fmt::format("{}: ids must be below text_config.vocab_size {}, got {}", name,
                                  config.text.vocab_size, tokenizer.id_limit() - 1));
  const auto image = tokenizer.token_to_id("<image>");
  if (!image || *image != config.image_token_id)
    fail<ConfigError>(fmt::format("{}: token <image> must have id {} (image_token_id), got {}",
                                  name, config.image_token_id,
                                  image ? std::to_string(*image) : "no such token"));
}

LoadedModel load_model_folder(const std::filesystem::path& path) {
  const auto folder = resolve_model_folder(path);
  const Ocr2Config config = read_ocr2_config(folder / "config.json");
  Tokenizer tokenizer = Tokenizer::load(folder / "tokenizer.json");
  check_tokenizer(tokenizer, config, (folder / "tokenizer.json").string());
  auto model = std::make_unique<Ocr2Model>(config, 0);
  load_weights(model->store(), folder);
  return {std::move(model), std::move(tokenizer), folder};
}

void save_model(const Ocr2Model& model, const std::filesystem::path& folder) {
  save_safetensors(folder / "model.safetensors", model.store().state(), {{"format", "pt"}});
  write_file(folder / "config.json", to_hf_json(model.config()).dump(2) + "\n");
}

}  // namespace lectern
