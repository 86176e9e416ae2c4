// Low-rank adapters as folders: what a run that trains one writes as its checkpoints
// (adapter.json, adapter-*.safetensors with their index), and the folders of PEFT
// (adapter_config.json, adapter_model.safetensors; published tensor names behind
// "base_model.model.").
#pragma once

#include "nn/adapter.h"
#include "nn/model_config.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace lectern {

/// What adapter.json, or PEFT's adapter_config.json, says.
struct AdapterInfo {
  AdapterShape shape;
  std::int64_t rank = 0;  ///< of most pairs, like alpha and rslora: what a file for PEFT says
  double alpha = 0;
  bool rslora = false;
  std::string base;       ///< folder of the model as it was named; what PEFT's file says of it
  std::string base_hash;  ///< weights_hash() of it; "" where the file has none
};

/// SHA-256 of names, dtypes, shapes and content of a model folder's weights, in order of their
/// published names: the same for any sharding. Reads all of them. Throws IoError.
std::string weights_hash(const std::filesystem::path& folder, const ModelConfig& config);

/// Whether a folder (or a run, a checkpoint) holds an adapter without its model.
bool is_adapter_folder(const std::filesystem::path& path);

/// Reads what an adapter is; `path` as is_adapter_folder(). Throws IoError or ConfigError naming
/// file and field, also for settings of PEFT that change what an adapter computes and that lectern
/// does not have (DoRA, biases, whole modules).
AdapterInfo read_adapter_info(const std::filesystem::path& path, const ModelConfig& config);

/// Reads the values of all pairs. Throws IoError naming folder and tensor.
void load_adapter(Adapter& adapter, const std::filesystem::path& path, const ModelConfig& config);

/// Throws ConfigError naming both unless the adapter was trained on this model; nothing is asked of
/// an adapter that does not say.
void check_base(const AdapterInfo& info, const std::filesystem::path& adapter,
                const std::filesystem::path& base, const ModelConfig& config);

/// adapter.json.
std::string adapter_json(const AdapterInfo& info);

}  // namespace lectern
