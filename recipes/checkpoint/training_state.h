// Everything that a training run needs to go on as if it had never stopped, from one checkpoint
// (recipes/checkpoint/saver.h writes it).
#pragma once

#include "distributed/parallel_adamw.h"
#include "nn/parameter.h"

#include <cstdint>
#include <filesystem>
#include <functional>
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

/// Loss-free balancing: moves the router bias of each layer by `rate`, from the tokens that each of
/// its experts had in a step (`counts`, i32 [experts] by layer). Nothing when the rate is 0.
void balance_experts(RunState& state, const std::map<std::int64_t, Tensor>& counts, double rate);

/// Name of a layer's router bias in a checkpoint.
std::string bias_name(std::int64_t layer);

/// Loads a checkpoint into what trains and its optimizer, of the same recipe, whatever ranks and
/// mesh wrote it; `load` reads the weights of `trained`. Throws IoError naming file and field, also
/// when the checkpoint has tensors that are no part of the model, and ConfigError when stage or
/// seed are not those of `wanted` or a parameter that was trained is frozen now. Collective.
RunState load_training_state(const std::filesystem::path& checkpoint, const RunState& wanted,
                             const ParameterStore& trained, const std::function<void()>& load,
                             ParallelAdamW& optimizer);

}  // namespace lectern
