#include "recipes/recipe/sources.h"

#include "core/error.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

namespace lectern {
namespace {

/// A table of the recipe as sources read it.
class TableReader final : public SettingsReader {
 public:
  explicit TableReader(ConfigReader& table) : table_(table) {}

  std::int64_t integer(std::string_view key, std::optional<std::int64_t> otherwise,
                       std::int64_t least, std::int64_t most) override {
    return table_.integer(key, otherwise, within(least, most));
  }
  double number(std::string_view key, std::optional<double> otherwise, double least,
                double most) override {
    return table_.number(key, otherwise, between(least, most));
  }
  std::array<double, 2> range(std::string_view key, std::array<double, 2> otherwise, double least,
                              double most) override {
    const auto values = table_.numbers(key, std::vector<double>(otherwise.begin(), otherwise.end()),
                                       between(least, most));
    if (values.size() != 2 || values[0] > values[1])
      table_.refuse(key, "must be two numbers, the smaller first");
    return {values[0], values[1]};
  }
  bool boolean(std::string_view key, std::optional<bool> otherwise) override {
    return table_.boolean(key, otherwise);
  }
  std::string string(std::string_view key, std::optional<std::string> otherwise) override {
    return table_.string(key, std::move(otherwise));
  }
  std::string choice(std::string_view key, std::optional<std::string> otherwise,
                     const std::vector<std::string>& choices) override {
    return table_.choice(key, std::move(otherwise), choices);
  }
  std::vector<std::string> strings(std::string_view key,
                                   std::optional<std::vector<std::string>> otherwise) override {
    return table_.strings(key, std::move(otherwise));
  }
  void refuse(std::string_view key, std::string_view message) override {
    table_.refuse(key, message);
  }

 private:
  ConfigReader& table_;
};

SourceRecipe read_source(ConfigReader table, std::size_t index, const DataRecipe& data) {
  SourceRecipe out;
  out.kind = table.choice("kind", kRequired, source_kinds());
  TableReader reader(table);
  const SourceDefaults defaults{data.prompt, data.ascii_only, data.max_characters,
                                data.max_text_tokens};
  out.settings = read_source_settings(out.kind, reader, defaults);
  out.name = table.string("name", fmt::format("{} {}", out.settings->label, index + 1));
  out.weight = table.number("weight", 1.0, positive());
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
    CurriculumRecipe level;
    level.name = table.string("name", fmt::format("level {}", out.size() + 1));
    level.sources = table.strings("sources", std::vector<std::string>{});
    check_names(table, "sources", level.sources, data.sources, "data.sources");
    level.weights = table.numbers("weights", std::vector<double>{}, positive());
    const std::size_t count = level.sources.empty() ? data.sources.size() : level.sources.size();
    if (!level.weights.empty() && level.weights.size() != count)
      table.refuse("weights", fmt::format("must have one number for each of the {} sources, got {}",
                                          count, level.weights.size()));
    level.validation = table.strings("validation", std::vector<std::string>{});
    check_names(table, "validation", level.validation, data.validation_sources,
                "data.validation_sources");
    level.jitter_pixels = table.integer("jitter_pixels", data.jitter_pixels, within(0, 4096));
    level.measure = table.choice("measure", "cer", {"cer", "loss"});
    level.advance_below = table.number("advance_below", 0.0, not_negative());
    level.max_steps = table.integer("max_steps", 0, within(0, 1'000'000'000));
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
