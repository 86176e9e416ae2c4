// What is looked at before a run's first step, so that nothing goes wrong in silence: that all
// ranks were started alike, which checkpoint a run goes on from and with which settings, what its
// data lack and share, what its views need.
#pragma once

#include "distributed/communicator.h"
#include "nn/model_config.h"
#include "recipes/log/metrics.h"
#include "recipes/recipe/recipe.h"

#include <cstdint>
#include <filesystem>
#include <string>

namespace lectern {

/// Throws ConfigError on every rank, naming rank, host and keys, unless all have the same settings:
/// `text` has a line `key = value` for each. `what` they are of, such as "recipe". Collective.
void check_same_on_all_ranks(Communicator& world, const std::string& what, const std::string& text);

/// The newest complete checkpoint of a folder whose files are what was written; "" when there is
/// none. What is damaged is set aside, and said, as is a newer one that is not complete. Throws
/// IoError when there were checkpoints and none can be used. Collective.
std::filesystem::path checkpoint_to_resume(Communicator& world,
                                           const std::filesystem::path& folder);

/// A run that was asked to go on and has no checkpoint begins from the start: says so, and puts the
/// records and the recipe of the run before aside.
void begin_anew(const RunFolder& folder);

/// Says which settings are others than those that steps 1 to `step` were trained with; whether any
/// are. They belong into changed_config().
bool note_changed_settings(const RunFolder& folder, const Recipe& recipe, std::int64_t step);

/// config-NNNNNN.toml: the recipe of the steps up to `step`.
std::filesystem::path changed_config(const RunFolder& folder, std::int64_t step);

/// Bytes that the encoder's activations of one micro-batch take; an estimate.
double encoder_activation_bytes(const Recipe& recipe, const ModelConfig& config);
/// Says so when that is much.
void note_large_views(const Recipe& recipe, const ModelConfig& config);

}  // namespace lectern
