// The weights that the ranks of a mesh hold, as files side by side: each rank writes a share of
// them, an index says which tensor is in which file, and a reader sees one model.
#pragma once

#include "distributed/mesh.h"
#include "nn/parameter.h"
#include "recipes/checkpoint/model_folder.h"

#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <string>
#include <vector>

namespace lectern {

/// A checkpoint tensor of a parameter that this rank writes.
struct SharedWeight {
  std::string name;
  Tensor value;  ///< a view
  bool is_trained = false;
};

/// The weights that this rank writes: of those that its replicas hold as well a share of about as
/// many bytes, in the order of files, never a part of a parameter (which a reader maps as one).
std::vector<SharedWeight> weights_of_rank(const ParameterStore& store, const Mesh& mesh);

/// "model-00002-of-00004.safetensors" for rank 1 of 4.
std::string shard_name(const char* stem, int rank, int ranks);

/// Writes one shard, and gives what the index has to say of it: file, names, bytes,
/// and the CRC-32 of the file.
nlohmann::json write_shard(const std::filesystem::path& folder, const std::string& file,
                           const NamedTensors& tensors);

/// <stem>.safetensors.index.json over the shards of all ranks.
void write_index(const std::filesystem::path& folder, const std::string& stem,
                 const std::vector<nlohmann::json>& shards);

}  // namespace lectern
