#include "recipes/checkpoint/model_folder.h"

#include "core/io/file.h"
#include "core/io/safetensors.h"
#include "nn/families.h"
#include "nn/weights.h"
#include "recipes/checkpoint/folder.h"
#include "recipes/checkpoint/peft.h"
#include "recipes/config/find.h"

#include <nlohmann/json.hpp>

namespace lectern {
namespace {

/// A configuration may ask for more memory than its weights justify: look before taking it.
void check_weights_size(const ModelConfig& config, const std::filesystem::path& folder) {
  constexpr double kSmallestWeight = 2;  // bytes, bf16
  double bytes = 0;
  bool has_any = false;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!name.ends_with(".safetensors") || name.starts_with("adapter_")) continue;
    has_any = true;
    bytes += static_cast<double>(entry.file_size());
  }
  if (!has_any) return;  // opening the weights says what is there instead
  if (bytes < kSmallestWeight * config.parameter_count())
    fail<IoError>(
        fmt::format("{}: *.safetensors must hold the {:.0f} parameters of config.json, "
                    "got {:.0f} bytes",
                    folder.string(), config.parameter_count(), bytes));
}

/// The folder of the model that an adapter names.
std::filesystem::path base_of_adapter(const std::filesystem::path& adapter) {
  const std::filesystem::path folder =
      is_peft_folder(adapter) ? adapter : resolve_model_folder(adapter);
  const std::filesystem::path file =
      folder / (is_peft_folder(folder) ? kPeftConfig : "adapter.json");
  const nlohmann::json json = parse_json(read_file(file), file.string());
  const auto name =
      is_peft_folder(folder)
          ? json.value("base_model_name_or_path", nlohmann::json())
          : json.value(nlohmann::json::json_pointer("/base/folder"), nlohmann::json());
  const std::string base = name.is_string() ? name.get<std::string>() : "";
  if (!base.empty() && std::filesystem::exists(base)) return base;
  fail<IoError>(fmt::format(
      "{}: is an adapter of the model in \"{}\", which is not there; name the model, and this "
      "folder with --adapter",
      folder.string(), base));
}

/// What the user's words for a model stand for.
struct NamedModel {
  std::filesystem::path folder, adapter;  // no adapter: ""
};

NamedModel named_model(const std::filesystem::path& path, const std::filesystem::path& adapter) {
  if (!is_adapter_folder(path)) return {resolve_model_folder(path), adapter};
  if (!adapter.empty())
    fail<ConfigError>(fmt::format("{}: must be a model for the adapter {}, got an adapter",
                                  path.string(), adapter.string()));
  return {resolve_model_folder(base_of_adapter(path)), path};
}

/// Configuration and tokenizer of a folder whose files are as they were written; no model yet.
LoadedModel open_checked(const NamedModel& named, std::unique_ptr<ModelConfig>& config) {
  const std::filesystem::path& folder = named.folder;
  check_not_damaged(folder);
  config = read_model_config(folder / "config.json");
  // Pages are read as in the run that trained the adapter.
  if (!named.adapter.empty() && !is_peft_folder(named.adapter))
    config->reading =
        read_model_config(resolve_model_folder(named.adapter) / "config.json")->reading;
  Tokenizer tokenizer = Tokenizer::load(folder / "tokenizer.json");
  check_tokenizer(tokenizer, *config, (folder / "tokenizer.json").string());
  return {nullptr, std::move(tokenizer), folder};
}

void put_adapter(const NamedModel& named, LoadedModel& loaded) {
  if (named.adapter.empty()) return;
  const ModelConfig& config = loaded.model->config();
  loaded.adapter_info = read_adapter_info(named.adapter, config);
  check_base(loaded.adapter_info, named.adapter, named.folder, config);
  loaded.adapter = std::make_unique<Adapter>(*loaded.model, loaded.adapter_info.shape, 0);
  load_adapter(*loaded.adapter, named.adapter, config);
}

}  // namespace

std::filesystem::path resolve_model_folder(const std::filesystem::path& path) {
  if (std::filesystem::exists(path / "config.json")) return path;
  return resolve_checkpoint(path);
}

std::filesystem::path shipped_model() {
  const std::filesystem::path folder = find_shipped("recipes/nano");
  if (!std::filesystem::exists(folder / "config.json"))
    fail<IoError>(
        fmt::format("{}: no model is there, nor beside the running program; name one with "
                    "--checkpoint",
                    folder.string()));
  return folder;
}

void check_tokenizer(const Tokenizer& tokenizer, const ModelConfig& config,
                     const std::string& name) {
  if (tokenizer.id_limit() > config.decoder.vocab_size)
    fail<ConfigError>(fmt::format("{}: ids must be below text_config.vocab_size {}, got {}", name,
                                  config.decoder.vocab_size, tokenizer.id_limit() - 1));
  const auto image = tokenizer.token_to_id("<image>");
  if (!image || *image != config.image_token_id)
    fail<ConfigError>(fmt::format("{}: token <image> must have id {} (image_token_id), got {}",
                                  name, config.image_token_id,
                                  image ? std::to_string(*image) : "no such token"));
  for (const auto& [field, id] : {std::pair{"bos_token_id", config.decoder.bos_token_id},
                                  std::pair{"eos_token_id", config.decoder.eos_token_id}})
    if (!tokenizer.id_to_token(static_cast<std::int32_t>(id)))
      fail<ConfigError>(fmt::format("{}: must have a token with id {} (text_config.{}), got none",
                                    name, id, field));
}

DType weight_dtype(const std::string& name) {
  if (name != "fp32" && name != "bf16")
    fail<ConfigError>(fmt::format("--dtype: must be fp32 or bf16, got {}", name));
  return name == "bf16" ? DType::bf16 : DType::f32;
}

std::unique_ptr<OcrModel> load_model(const std::filesystem::path& folder, const ModelConfig& config,
                                     DType dtype, std::int64_t* mapped) {
  check_weights_size(config, folder);
  auto model = config.make(0, dtype, ParameterValues::absent);
  const LoadReport report = load_weights(*model, folder);
  if (mapped != nullptr) *mapped = report.mapped;
  return model;
}

void check_not_damaged(const std::filesystem::path& folder) {
  const std::string damage = find_damage(folder, CheckedFiles::model);
  if (!damage.empty()) fail<IoError>(damage);
}

LoadedModel load_model_folder(const std::filesystem::path& path, DType dtype,
                              const std::filesystem::path& adapter) {
  const NamedModel named = named_model(path, adapter);
  std::unique_ptr<ModelConfig> config;
  LoadedModel out = open_checked(named, config);
  out.model = load_model(out.folder, *config, dtype);
  put_adapter(named, out);
  return out;
}

LoadedModel open_model_folder(const std::filesystem::path& path,
                              const std::filesystem::path& adapter) {
  const NamedModel named = named_model(path, adapter);
  std::unique_ptr<ModelConfig> config;
  LoadedModel out = open_checked(named, config);
  check_weights_size(*config, out.folder);
  out.model = config->make(0, DType::f32, ParameterValues::absent);
  put_adapter(named, out);
  return out;
}

void LoadedModel::to(Device device) const {
  model->store().to(device);
  if (adapter) adapter->to(device);
}

void save_index(const std::filesystem::path& folder, const std::string& stem,
                const std::string& file, const std::vector<std::string>& names, std::size_t bytes) {
  nlohmann::json map = nlohmann::json::object();
  for (const std::string& name : names) map[name] = file;
  const nlohmann::json index = {{"metadata", {{"total_size", bytes}}}, {"weight_map", map}};
  write_file(folder / (stem + ".safetensors.index.json"), index.dump(2) + "\n");
}

void save_indexed(const std::filesystem::path& folder, const std::string& stem,
                  const std::string& file, const NamedTensors& tensors) {
  save_safetensors(folder / file, tensors, {{"format", "pt"}});
  std::vector<std::string> names;
  std::size_t bytes = 0;
  for (const auto& [name, tensor] : tensors) {
    names.push_back(name);
    bytes += tensor.bytes();
  }
  save_index(folder, stem, file, names, bytes);
}

void save_model(const OcrModel& model, const std::filesystem::path& folder) {
  save_indexed(folder, "model", "model-00001-of-00001.safetensors",
               model.store().file_order_state());
  write_file(folder / "config.json", model.config().to_json().dump(2) + "\n");
}

}  // namespace lectern
