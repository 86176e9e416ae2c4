// Everything that a training run needs to go on as if it had never stopped, as one checkpoint.
#pragma once

#include "nn/ocr2/model.h"
#include "nn/optimizer.h"

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
std::filesystem::path save_training_state(const std::filesystem::path& folder,
                                          const Ocr2Model& model, const AdamW& optimizer,
                                          const std::string& tokenizer_json, const RunState& state,
                                          std::int64_t keep);

/// Loads a checkpoint into a model and optimizer of the same recipe. Throws IoError naming file and
/// field, ConfigError when stage or seed are not those of `wanted`.
RunState load_training_state(const std::filesystem::path& checkpoint, const RunState& wanted,
                             Ocr2Model& model, AdamW& optimizer);

}  // namespace lectern
