#include "recipes/train/curriculum.h"

#include "core/random.h"

namespace lectern {

const CurriculumRecipe* level_of(const Recipe& recipe, const RunState& state) {
  return recipe.curriculum.empty() ? nullptr
                                   : &recipe.curriculum[static_cast<std::size_t>(state.level)];
}

std::uint64_t level_seed(const Recipe& recipe, const RunState& state) {
  const auto seed = static_cast<std::uint64_t>(recipe.seed);
  if (state.level == 0) return seed;
  Random random(seed, fmt::format("curriculum/level-{}", state.level));
  return random.below(std::uint64_t{1} << 62);
}

bool is_level_done(const Recipe& recipe, const RunState& state, std::optional<double> figure) {
  const CurriculumRecipe* now = level_of(recipe, state);
  if (now == nullptr || state.level + 1 >= static_cast<std::int64_t>(recipe.curriculum.size()))
    return false;
  if (now->max_steps > 0 && state.step - state.level_step >= now->max_steps) return true;
  return figure && now->advance_below > 0 && *figure <= now->advance_below;
}

void begin_next_level(RunState& state) {
  ++state.level;
  state.level_step = state.step;
  state.level_position = state.loader_position;
}

}  // namespace lectern
