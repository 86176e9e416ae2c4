// Everything that a training run needs to go on as if it had never stopped, as one checkpoint.
#pragma once

#include "distributed/mesh.h"
#include "distributed/parallel_adamw.h"
#include "nn/ocr2/model.h"

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

namespace lectern {

/// What is not a tensor of the model or of the optimizer.
struct RunState {
  std::int64_t step = 0;              ///< optimizer steps done
  std::uint64_t loader_position = 0;  ///< samples consumed
  std::int64_t stage = 0;
  std::int64_t seed = 0;
  std::int64_t level = 0;                         ///< of the curriculum, from 0
  std::int64_t level_step = 0;                    ///< step after which the level began
  std::uint64_t level_position = 0;               ///< samples consumed before it
  std::map<std::int64_t, Tensor> selection_bias;  ///< router bias of each MoE layer (loss-free)
};

/// Writes `<folder>/step-NNNNNN`: config.json, model-*.safetensors and optimizer-*.safetensors with
/// their indexes, state.json, tokenizer.json, COMPLETE. Keeps the newest `keep`. Returns its path.
///
/// Every rank writes a share of the weights and the optimizer state that it keeps, side by side,
/// into a folder that all of them see; COMPLETE comes when the last is done. Throws IoError on
/// every rank when one could not write; nothing is left of the checkpoint then. Collective.
std::filesystem::path save_training_state(const std::filesystem::path& folder,
                                          const Ocr2Model& model, const ParallelAdamW& optimizer,
                                          const std::string& tokenizer_json, const RunState& state,
                                          std::int64_t keep, const Mesh& mesh);

/// Loads a checkpoint into a model and optimizer of the same recipe, whatever ranks and mesh wrote
/// it. Throws IoError naming file and field, ConfigError when stage or seed are not those of
/// `wanted`, and, where the model `is_whole`, when it lacks tensors of the checkpoint. Collective.
RunState load_training_state(const std::filesystem::path& checkpoint, const RunState& wanted,
                             Ocr2Model& model, ParallelAdamW& optimizer, bool is_whole = true);

}  // namespace lectern
