#include "recipes/training_state.h"

#include "core/file.h"
#include "core/safetensors.h"
#include "nn/ocr2/weights.h"
#include "recipes/checkpoint_folder.h"
#include "recipes/model_folder.h"
#include "recipes/versions.h"

#include <nlohmann/json.hpp>

namespace lectern {
namespace {

std::string bias_name(std::int64_t layer) { return fmt::format("selection_bias.{}", layer); }

nlohmann::json state_json(const AdamW& optimizer, const RunState& state) {
  nlohmann::json layers = nlohmann::json::array();
  for (const auto& [layer, bias] : state.selection_bias) layers.push_back(layer);
  return {{"step", state.step},
          {"loader_position", state.loader_position},
          {"curriculum",
           {{"level", state.level},
            {"step", state.level_step},
            {"loader_position", state.level_position}}},
          {"stage", state.stage},
          {"seed", state.seed},
          {"random", "Philox4x32-10; streams are named, positions follow from step and sample"},
          {"schedule_step", state.step},
          {"optimizer_steps", optimizer.step_counts()},
          {"selection_bias_layers", layers},
          {"git_revision", git_revision()},
          {"mesh", {{"pp", 1}, {"dp", 1}, {"ep", 1}}}};
}

/// A field of state.json as T; throws IoError naming file and field.
template <typename T>
T field(const nlohmann::json& json, const char* name, const std::filesystem::path& file) {
  try {
    return json.at(name).get<T>();
  } catch (const nlohmann::json::exception& error) {
    fail<IoError>(fmt::format("{}: {}: {}", file.string(), name, error.what()));
  }
}

}  // namespace

std::filesystem::path save_training_state(const std::filesystem::path& folder,
                                          const Ocr2Model& model, const AdamW& optimizer,
                                          const std::string& tokenizer_json, const RunState& state,
                                          std::int64_t keep) {
  CheckpointWriter writer(folder, state.step);
  save_model(model, writer.path());
  auto tensors = optimizer.state();
  for (const auto& [layer, bias] : state.selection_bias)
    tensors.emplace_back(bias_name(layer), bias);
  save_indexed(writer.path(), "optimizer", "optimizer-00001-of-00001.safetensors", tensors);
  writer.add("tokenizer.json", tokenizer_json);
  writer.add("state.json", state_json(optimizer, state).dump(2) + "\n");
  return writer.commit(keep);
}

RunState load_training_state(const std::filesystem::path& checkpoint, const RunState& wanted,
                             Ocr2Model& model, AdamW& optimizer) {
  const auto file = checkpoint / "state.json";
  const nlohmann::json json = parse_json(read_file(file), file.string());
  RunState state;
  state.step = field<std::int64_t>(json, "step", file);
  state.loader_position = field<std::uint64_t>(json, "loader_position", file);
  state.stage = field<std::int64_t>(json, "stage", file);
  state.seed = field<std::int64_t>(json, "seed", file);
  if (state.stage != wanted.stage || state.seed != wanted.seed)
    fail<ConfigError>(
        fmt::format("{}: stage and seed must be {} and {} as in the recipe, got {} and {}",
                    checkpoint.string(), wanted.stage, wanted.seed, state.stage, state.seed));
  if (json.contains("curriculum")) {  // checkpoints of older versions have none
    const nlohmann::json& curriculum = json["curriculum"];
    state.level = field<std::int64_t>(curriculum, "level", file);
    state.level_step = field<std::int64_t>(curriculum, "step", file);
    state.level_position = field<std::uint64_t>(curriculum, "loader_position", file);
  }
  const auto steps = field<std::map<std::string, std::int64_t>>(json, "optimizer_steps", file);

  const SafetensorsFolder tensors = SafetensorsFolder::open(checkpoint, "optimizer");
  std::vector<std::pair<std::string, Tensor>> moments;
  for (const std::string& name : tensors.names())
    if (!name.starts_with("selection_bias.")) moments.emplace_back(name, tensors.get(name));
  for (const std::int64_t layer :
       field<std::vector<std::int64_t>>(json, "selection_bias_layers", file))
    state.selection_bias[layer] = tensors.get(bias_name(layer)).clone();

  load_weights(model.store(), checkpoint);
  optimizer.load_state(moments, steps);
  return state;
}

}  // namespace lectern
