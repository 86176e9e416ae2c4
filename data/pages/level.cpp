#include "data/pages/level.h"

#include "core/error.h"

#include <array>
#include <utility>

namespace lectern {
namespace {

constexpr std::array<std::pair<std::string_view, Level>, 5> kLevels{
    {{"character", Level::character},
     {"word", Level::word},
     {"line", Level::line},
     {"region", Level::region},
     {"page", Level::page}}};

}  // namespace

Level level_from(std::string_view name) {
  for (const auto& [text, level] : kLevels)
    if (text == name) return level;
  fail<ConfigError>(
      fmt::format("level must be character, word, line, region or page, got \"{}\"", name));
}

std::string_view name_of(Level level) { return kLevels[static_cast<std::size_t>(level)].first; }

}  // namespace lectern
