// Where a run stands in its curriculum. A recipe without one is one level.
#pragma once

#include "recipes/checkpoint/training_state.h"
#include "recipes/recipe/recipe.h"

#include <cstdint>
#include <optional>

namespace lectern {

/// The level that the run is at; null without a curriculum.
const CurriculumRecipe* level_of(const Recipe& recipe, const RunState& state);

/// Seed of the order of the level's samples; the first level has the recipe's.
std::uint64_t level_seed(const Recipe& recipe, const RunState& state);

/// Whether the level has done its work: `figure` is what was measured after this step, if it was.
bool is_level_done(const Recipe& recipe, const RunState& state, std::optional<double> figure);

/// The next level begins where the run stands.
void begin_next_level(RunState& state);

}  // namespace lectern
