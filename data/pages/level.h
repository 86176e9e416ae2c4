// How much of a page one sample shows.
#pragma once

#include <string_view>

namespace lectern {

enum class Level { character, word, line, region, page };

/// Throws ConfigError for another name.
Level level_from(std::string_view name);
std::string_view name_of(Level level);

}  // namespace lectern
