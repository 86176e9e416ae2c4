#include "recipes/training_state.h"

#include "core/file.h"
#include "core/safetensors.h"
#include "distributed/moment_reader.h"
#include "distributed/world.h"
#include "nn/ocr2/weights.h"
#include "recipes/checkpoint_folder.h"
#include "recipes/model_folder.h"
#include "recipes/versions.h"

#include <nlohmann/json.hpp>

#include <functional>
#include <optional>

namespace lectern {
namespace {

std::string bias_name(std::int64_t layer) { return fmt::format("selection_bias.{}", layer); }

nlohmann::json state_json(const std::map<std::string, std::int64_t>& optimizer_steps,
                          const RunState& state, const MeshShape& mesh) {
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
          {"optimizer_steps", optimizer_steps},
          {"selection_bias_layers", layers},
          {"git_revision", git_revision()},
          {"mesh", {{"pp", mesh.pp}, {"dp", mesh.dp}, {"ep", mesh.ep}}}};
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

/// The weights that this rank writes: those that its replicas hold as well, in the order of files,
/// cut into shares of about as many bytes, never inside a parameter (which a reader maps as one).
NamedTensors weights_of_rank(const ParameterStore& store, const Mesh& mesh) {
  NamedTensors out;
  for (const bool experts : {false, true}) {
    const Communicator& replicas = experts ? *mesh.expert_replicas() : *mesh.data();
    const std::int64_t ranks = replicas.size(), rank = replicas.rank();
    std::int64_t total = 0, at = 0;
    for (const Parameter& parameter : store.parameters())
      if (is_spread_expert(parameter.name, mesh) == experts)
        total += parameter.variable.value().numel();
    for (const Parameter& parameter : store.parameters()) {
      if (is_spread_expert(parameter.name, mesh) != experts) continue;
      const Tensor& value = parameter.variable.value();
      const std::int64_t middle = at + value.numel() / 2;
      if (middle * ranks / std::max<std::int64_t>(total, 1) == rank)
        for (const ParameterPart& part : parameter.parts)
          out.emplace_back(part.name, parameter.part_of(value, part));
      at += value.numel();
    }
  }
  return out;
}

NamedTensors moments_of_rank(const std::vector<MomentPiece>& pieces) {
  NamedTensors out;
  for (const MomentPiece& piece : pieces) {
    const std::string name =
        piece.is_whole ? piece.parameter : piece_name(piece.parameter, piece.begin, piece.end);
    out.emplace_back(name + ".exp_avg", piece.exp_avg);
    out.emplace_back(name + ".exp_avg_sq", piece.exp_avg_sq);
  }
  return out;
}

std::string shard_name(const char* stem, int rank, int ranks) {
  return fmt::format("{}-{:05}-of-{:05}.safetensors", stem, rank + 1, ranks);
}

/// Writes this rank's shard, and gives what the index has to say of it.
nlohmann::json write_shard(const std::filesystem::path& folder, const std::string& file,
                           const NamedTensors& tensors) {
  save_safetensors(folder / file, tensors, {{"format", "pt"}});
  nlohmann::json names = nlohmann::json::array();
  std::size_t bytes = 0;
  for (const auto& [name, tensor] : tensors) {
    names.push_back(name);
    bytes += tensor.bytes();
  }
  return {{"file", file}, {"names", names}, {"bytes", bytes}};
}

void write_index(const CheckpointWriter& writer, const std::string& stem,
                 const std::vector<nlohmann::json>& shards) {
  nlohmann::json map = nlohmann::json::object();
  std::size_t bytes = 0;
  for (const nlohmann::json& shard : shards) {
    for (const nlohmann::json& name : shard["names"]) map[name.get<std::string>()] = shard["file"];
    bytes += shard["bytes"].get<std::size_t>();
  }
  const nlohmann::json index = {{"metadata", {{"total_size", bytes}}}, {"weight_map", map}};
  writer.add(stem + ".safetensors.index.json", index.dump(2) + "\n");
}

/// Runs `work` on every rank and gives each rank what all of them returned. Where one threw an
/// Error, all throw it: nobody waits for a rank that has left.
std::vector<std::string> together(Communicator& ranks, const std::function<std::string()>& work) {
  std::string text;
  try {
    text = "+" + work();
  } catch (const Error& error) {
    text = std::string("-") + error.what();
  }
  std::vector<std::string> all = all_gather_text(ranks, text);
  for (std::string& each : all) {
    if (each.starts_with('-')) throw IoError(each.substr(1));
    each.erase(0, 1);
  }
  return all;
}

}  // namespace

std::filesystem::path save_training_state(const std::filesystem::path& folder,
                                          const Ocr2Model& model, const ParallelAdamW& optimizer,
                                          const std::string& tokenizer_json, const RunState& state,
                                          std::int64_t keep, const Mesh& mesh) {
  Communicator& world = mesh.world();
  const int rank = world.rank(), ranks = world.size();
  std::optional<CheckpointWriter> writer;
  const std::filesystem::path path = together(world, [&]() -> std::string {
    if (rank != 0) return "";
    writer.emplace(folder, state.step);
    return writer->path().string();
  })[0];

  const auto shards = together(world, [&] {
    const std::vector<MomentPiece> pieces = optimizer.state();
    auto moments = moments_of_rank(pieces);
    if (rank == 0)
      for (const auto& [layer, bias] : state.selection_bias)
        moments.emplace_back(bias_name(layer), bias);
    std::map<std::string, std::int64_t> steps;
    for (const MomentPiece& piece : pieces) steps[piece.parameter] = piece.steps;
    return nlohmann::json{
        {"model",
         write_shard(path, shard_name("model", rank, ranks), weights_of_rank(model.store(), mesh))},
        {"optimizer", write_shard(path, shard_name("optimizer", rank, ranks), moments)},
        {"steps", steps}}
        .dump();
  });

  return together(world, [&]() -> std::string {
    if (rank != 0) return "";
    std::vector<nlohmann::json> weights, moments;
    std::map<std::string, std::int64_t> steps;
    for (const std::string& text : shards) {
      const nlohmann::json shard = nlohmann::json::parse(text);
      weights.push_back(shard["model"]);
      moments.push_back(shard["optimizer"]);
      steps.merge(shard["steps"].get<std::map<std::string, std::int64_t>>());
    }
    write_index(*writer, "model", weights);
    write_index(*writer, "optimizer", moments);
    writer->add("config.json", to_hf_json(model.config()).dump(2) + "\n");
    writer->add("tokenizer.json", tokenizer_json);
    writer->add("state.json", state_json(steps, state, mesh.shape()).dump(2) + "\n");
    return writer->commit(keep).string();
  })[0];
}

RunState load_training_state(const std::filesystem::path& checkpoint, const RunState& wanted,
                             Ocr2Model& model, ParallelAdamW& optimizer, bool is_whole) {
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
  for (const std::int64_t layer :
       field<std::vector<std::int64_t>>(json, "selection_bias_layers", file))
    state.selection_bias[layer] = tensors.get(bias_name(layer)).clone();

  load_weights(model.store(), checkpoint, {}, is_whole);
  const MomentReader moments(tensors);
  optimizer.load_state([&](const std::string& moment, std::int64_t begin,
                           std::int64_t end) { return moments.read(moment, begin, end); },
                       steps);
  return state;
}

}  // namespace lectern
