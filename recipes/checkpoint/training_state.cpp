#include "recipes/checkpoint/training_state.h"

#include "core/io/file.h"
#include "core/io/safetensors.h"
#include "core/ops/router.h"
#include "distributed/moment_reader.h"

#include <nlohmann/json.hpp>

namespace lectern {
namespace {

/// A field of state.json as T; throws IoError naming file and field.
template <typename T>
T field(const nlohmann::json& json, const char* name, const std::filesystem::path& file) {
  try {
    return json.at(name).get<T>();
  } catch (const nlohmann::json::exception& error) {
    fail<IoError>(fmt::format("{}: {}: {}", file.string(), name, error.what()));
  }
}

/// Throws ConfigError when parameters have optimizer state in the checkpoint and are frozen now: to
/// go on would be another training, and would lose that state.
void check_frozen(const std::filesystem::path& checkpoint, const ParameterStore& store,
                  const std::map<std::string, std::int64_t>& steps) {
  std::string names;
  std::int64_t count = 0;
  for (const Parameter& parameter : store.parameters()) {
    if (parameter.variable.requires_grad() || !steps.contains(parameter.name)) continue;
    if (++count <= 3) names += (names.empty() ? "" : ", ") + parameter.name;
  }
  if (count > 0)
    fail<ConfigError>(fmt::format(
        "{}: `freeze` must leave what the run trains, got {} parameters that are frozen now and "
        "were not: {}{} (a run with another freeze begins with model.init = \"{}\")",
        checkpoint.string(), count, names, count > 3 ? ", ..." : "", checkpoint.string()));
}

}  // namespace

void balance_experts(RunState& state, const std::map<std::int64_t, Tensor>& counts, double rate) {
  if (rate <= 0) return;
  for (const auto& [layer, count] : counts) {
    auto [at, is_new] = state.selection_bias.try_emplace(layer);
    if (is_new) at->second = Tensor::zeros({count.numel()});
    update_selection_bias(at->second, count, rate);
  }
}

std::string bias_name(std::int64_t layer) { return fmt::format("selection_bias.{}", layer); }

RunState load_training_state(const std::filesystem::path& checkpoint, const RunState& wanted,
                             const ParameterStore& trained, const std::function<void()>& load,
                             ParallelAdamW& optimizer) {
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

  check_frozen(checkpoint, trained, steps);

  const SafetensorsFolder tensors = SafetensorsFolder::open(checkpoint, "optimizer");
  for (const std::int64_t layer :
       field<std::vector<std::int64_t>>(json, "selection_bias_layers", file))
    state.selection_bias[layer] = tensors.get(bias_name(layer)).clone();

  load();
  const MomentReader moments(tensors);
  optimizer.load_state([&](const std::string& moment, std::int64_t begin,
                           std::int64_t end) { return moments.read(moment, begin, end); },
                       steps);
  return state;
}

}  // namespace lectern
