// Reading [[data.sources]] and [[curriculum]]. Private to this room.
#pragma once

#include "recipes/recipe/recipe.h"

#include <string_view>
#include <vector>

namespace lectern {

/// The sources of one list; `data` has the values that they start from.
std::vector<SourceRecipe> read_sources(ConfigReader data, std::string_view key,
                                       const DataRecipe& defaults);
/// Throws ConfigError for a name that no source has, and without data.sources.
std::vector<CurriculumRecipe> read_curriculum(ConfigReader root, const DataRecipe& data);

}  // namespace lectern
