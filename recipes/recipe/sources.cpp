#include "recipes/recipe/sources.h"

#include "core/error.h"
#include "recipes/config/fields.h"

#include <algorithm>

namespace lectern {
namespace {

SourceRecipe read_source(ConfigReader table, std::size_t index, const DataRecipe& data) {
  SourceRecipe out = read_record(table, SourceRecipe{}, data);
  out.settings->check(
      [&](std::string_view key, std::string_view message) { table.refuse(key, message); });
  if (out.name.empty()) out.name = fmt::format("{} {}", out.settings->label(), index + 1);
  return out;
}

/// Throws for the first of `names` that no source has.
void check_names(const ConfigReader& table, std::string_view key,
                 const std::vector<std::string>& names, const std::vector<SourceRecipe>& sources,
                 std::string_view list) {
  for (const std::string& name : names) {
    std::string known;
    for (const SourceRecipe& source : sources)
      known += (known.empty() ? "\"" : ", \"") + source.name + "\"";
    const bool found = std::any_of(sources.begin(), sources.end(),
                                   [&](const SourceRecipe& s) { return s.name == name; });
    if (!found)
      table.refuse(key, fmt::format("must be names of {} ({}), got \"{}\"", list, known, name));
  }
}

}  // namespace

std::vector<SourceRecipe> read_sources(ConfigReader data, std::string_view key,
                                       const DataRecipe& defaults) {
  std::vector<SourceRecipe> out;
  for (ConfigReader& table : data.tables(key)) {
    SourceRecipe source = read_source(table, out.size(), defaults);
    for (const SourceRecipe& other : out)
      if (other.name == source.name)
        table.refuse("name", fmt::format("must differ from the other sources', got \"{}\" twice",
                                         source.name));
    out.push_back(std::move(source));
  }
  return out;
}

std::vector<CurriculumRecipe> read_curriculum(ConfigReader root, const DataRecipe& data) {
  std::vector<CurriculumRecipe> out;
  for (ConfigReader& table : root.tables("curriculum")) {
    if (data.sources.empty())
      root.refuse("curriculum", "needs [[data.sources]] to choose from, got none");
    CurriculumRecipe level = read_record(table, CurriculumRecipe{}, data, out.size());
    check_names(table, "sources", level.sources, data.sources, "data.sources");
    const std::size_t count = level.sources.empty() ? data.sources.size() : level.sources.size();
    if (!level.weights.empty() && level.weights.size() != count)
      table.refuse("weights", fmt::format("must have one number for each of the {} sources, got {}",
                                          count, level.weights.size()));
    check_names(table, "validation", level.validation, data.validation_sources,
                "data.validation_sources");
    if (level.advance_below > 0 && data.validation.empty() && data.validation_sources.empty())
      table.refuse("advance_below", "needs data.validation or [[data.validation_sources]]");
    out.push_back(std::move(level));
  }
  for (std::size_t i = 0; i + 1 < out.size(); ++i)
    if (out[i].advance_below == 0 && out[i].max_steps == 0)
      root.refuse("curriculum", fmt::format("[{}] must have advance_below or max_steps above 0, or "
                                            "the levels after it never come",
                                            i));
  return out;
}

}  // namespace lectern
