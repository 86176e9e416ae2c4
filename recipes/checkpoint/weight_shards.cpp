#include "recipes/checkpoint/weight_shards.h"

#include "core/io/file.h"
#include "core/io/files.h"
#include "core/io/safetensors.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace lectern {

std::vector<SharedWeight> weights_of_rank(const ParameterStore& store, const Mesh& mesh) {
  std::vector<SharedWeight> out;
  for (const bool experts : {false, true}) {
    const Communicator& replicas = experts ? *mesh.expert_replicas() : *mesh.data();
    const std::int64_t ranks = replicas.size(), rank = replicas.rank();
    std::int64_t total = 0, at = 0;
    for (const Parameter& parameter : store.parameters())
      if (parameter.is_spread() == experts) total += parameter.variable.value().numel();
    for (const Parameter& parameter : store.parameters()) {
      if (parameter.is_spread() != experts) continue;
      const Tensor& value = parameter.variable.value();
      const std::int64_t middle = at + value.numel() / 2;
      if (middle * ranks / std::max<std::int64_t>(total, 1) == rank)
        for (const ParameterPart& part : parameter.parts)
          out.push_back(
              {part.name, parameter.part_of(value, part), parameter.variable.requires_grad()});
      at += value.numel();
    }
  }
  return out;
}

std::string shard_name(const char* stem, int rank, int ranks) {
  return fmt::format("{}-{:05}-of-{:05}.safetensors", stem, rank + 1, ranks);
}

nlohmann::json write_shard(const std::filesystem::path& folder, const std::string& file,
                           const NamedTensors& tensors) {
  save_safetensors(folder / file, tensors, {{"format", "pt"}});
  nlohmann::json names = nlohmann::json::array();
  std::size_t bytes = 0;
  for (const auto& [name, tensor] : tensors) {
    names.push_back(name);
    bytes += tensor.bytes();
  }
  const std::uint32_t checksum = crc32_of_file(folder / file);
  return {{"file", file}, {"names", names}, {"bytes", bytes}, {"checksum", checksum}};
}

void write_index(const std::filesystem::path& folder, const std::string& stem,
                 const std::vector<nlohmann::json>& shards) {
  nlohmann::json map = nlohmann::json::object();
  std::size_t bytes = 0;
  for (const nlohmann::json& shard : shards) {
    for (const nlohmann::json& name : shard["names"]) map[name.get<std::string>()] = shard["file"];
    bytes += shard["bytes"].get<std::size_t>();
  }
  const nlohmann::json index = {{"metadata", {{"total_size", bytes}}}, {"weight_map", map}};
  write_file(folder / (stem + ".safetensors.index.json"), index.dump(2) + "\n");
}

}  // namespace lectern
