#include "core/error.h"
#include "core/io/file.h"
#include "recipes/export/layout.h"

#include <nlohmann/json.hpp>

namespace lectern {
namespace {

using nlohmann::json;

/// Name of the special token with this id, as tokenizer_config.json wants it.
std::string token_name(const Tokenizer& tokenizer, std::int64_t id) {
  return tokenizer.id_to_token(static_cast<std::int32_t>(id)).value_or("");
}

json tokenizer_config(const LoadedModel& loaded) {
  const DecoderConfig& text = loaded.model->config().decoder;
  return {{"bos_token", token_name(loaded.tokenizer, text.bos_token_id)},
          {"eos_token", token_name(loaded.tokenizer, text.eos_token_id)},
          {"pad_token", token_name(loaded.tokenizer, text.pad_token_id)},
          {"add_bos_token", true},
          {"add_eos_token", false},
          {"clean_up_tokenization_spaces", false},
          {"model_max_length", text.max_position_embeddings},
          {"tokenizer_class", "PreTrainedTokenizerFast"}};
}

json special_tokens_map(const LoadedModel& loaded) {
  const json config = tokenizer_config(loaded);
  return {{"bos_token", config["bos_token"]},
          {"eos_token", config["eos_token"]},
          {"pad_token", config["pad_token"]}};
}

json generation_config(const DecoderConfig& text) {
  return {{"_from_model_config", true},
          {"bos_token_id", text.bos_token_id},
          {"eos_token_id", text.eos_token_id},
          {"pad_token_id", text.pad_token_id},
          {"use_cache", true}};
}

}  // namespace

void check_plain_residual(const LoadedModel& loaded) {
  const ModelConfig& config = loaded.model->config();
  if (config.residual.is_plain()) return;
  fail<ConfigError>(fmt::format(
      "export: no format of other programs has hyper-connections, and this model has residual = "
      "\"{}\" (lectern.residual in config.json). It cannot be rewritten as a plain one; what can "
      "be exported is a model trained with residual = \"plain\". This one is complete as it is: "
      "the checkpoint {} (config.json, model-*.safetensors, tokenizer.json) is what lectern ocr, "
      "eval and train read",
      name_of(config.residual.kind), loaded.folder.string()));
}

void check_f32(const ExportOptions& options) {
  if (options.dtype != DType::f32)
    fail<ConfigError>(fmt::format("export: dtype must be f32 for other programs, got {}",
                                  name_of(options.dtype)));
  if (options.type || options.vision_type)
    fail<ConfigError>("export: --type and --vision-type are for --format gguf");
}

void write_json(const std::filesystem::path& path, const json& value) {
  write_file(path, value.dump(2) + "\n");
}

void write_token_files(const LoadedModel& loaded, const std::filesystem::path& folder) {
  write_json(folder / "generation_config.json", generation_config(loaded.model->config().decoder));
  write_json(folder / "tokenizer_config.json", tokenizer_config(loaded));
  write_json(folder / "special_tokens_map.json", special_tokens_map(loaded));
}

}  // namespace lectern
