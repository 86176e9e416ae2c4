#include "recipes/recipe/sources.h"

#include "core/error.h"

#include <algorithm>
#include <array>

namespace lectern {
namespace {

const std::vector<std::string> kCutLevels = {"page", "region", "line", "word"};
const std::vector<std::string> kDrawnLevels = {"page", "region", "line", "word", "character"};

std::array<double, 2> pair_of(ConfigReader& table, std::string_view key,
                              const std::array<double, 2>& otherwise, Range<double> range) {
  const auto values =
      table.numbers(key, std::vector<double>(otherwise.begin(), otherwise.end()), range);
  if (values.size() != 2 || values[0] > values[1])
    table.refuse(key, "must be two numbers, the smaller first");
  return {values[0], values[1]};
}

/// What a drawn source looks like; the ranges are those of SyntheticSource.
void read_look(ConfigReader& table, SyntheticOptions& out) {
  const SyntheticOptions usual;
  const auto share = [&](std::string_view key, double otherwise) {
    return table.number(key, otherwise, between(0, 1));
  };
  out.fonts = table.strings("fonts", std::vector<std::string>{});
  out.distinct_share = share("distinct_share", usual.distinct_share);
  out.random_share = share("random_share", usual.random_share);
  out.font_size = pair_of(table, "font_size", usual.font_size, between(2, 512));
  out.bold_share = share("bold_share", usual.bold_share);
  out.italic_share = share("italic_share", usual.italic_share);
  out.stretch = table.number("stretch", usual.stretch, between(0, 0.5));
  out.rotation_degrees = table.number("rotation_degrees", usual.rotation_degrees, between(0, 2));
  out.blur = table.number("blur", usual.blur, between(0, 8));
  out.noise = table.number("noise", usual.noise, between(0, 100));
  out.jpeg_share = share("jpeg_share", usual.jpeg_share);
  out.jpeg_quality = table.integer("jpeg_quality", usual.jpeg_quality, within(1, 95));
  out.ink = table.integer("ink", usual.ink, within(0, 191));
  out.paper = table.integer("paper", usual.paper, within(out.ink + 64, 255));
  out.colour_share = share("colour_share", usual.colour_share);
  if (out.level != Level::page) return;
  const auto width = pair_of(table, "page_width", {600, 900}, between(64, 8192));
  out.page_width = {static_cast<std::int64_t>(width[0]), static_cast<std::int64_t>(width[1])};
}

void read_synthetic(ConfigReader& table, SourceRecipe& out) {
  out.text = table.strings("text", kRequired);
  if (out.text.empty()) table.refuse("text", "must name a file or folder, got none");
  out.exclude = table.strings("exclude", std::vector<std::string>{});
  out.scripts = table.strings("scripts", std::vector<std::string>{"latin"});
  for (const std::string& name : out.scripts)
    if (name != "latin" && name != "greek" && name != "cyrillic" && name != "cjk")
      table.refuse("scripts", fmt::format("must be of \"latin\", \"greek\", \"cyrillic\" and "
                                          "\"cjk\", got \"{}\"",
                                          name));
  SyntheticOptions& look = out.synthetic;
  look.level = level_from(out.level);
  look.max_characters = out.max_characters;
  look.min_characters = table.integer("min_characters", 1, within(1, out.max_characters));
  look.region_lines = out.region_lines;
  read_look(table, look);
}

SourceRecipe read_source(ConfigReader table, std::size_t index, const DataRecipe& defaults) {
  SourceRecipe out;
  out.kind = table.choice("kind", kRequired, {"shards", "synthetic"});
  const bool drawn = out.kind == "synthetic";
  out.level = table.choice("level", kRequired, drawn ? kDrawnLevels : kCutLevels);
  out.name = table.string("name", fmt::format("{} {}", out.level, index + 1));
  out.weight = table.number("weight", 1.0, positive());
  out.ascii_only = table.boolean("ascii_only", defaults.ascii_only);
  const std::int64_t usual = drawn && defaults.max_characters == 0 ? 12 : defaults.max_characters;
  out.max_characters =
      table.integer("max_characters", usual, within(drawn ? 1 : 0, drawn ? 1000 : 1 << 20));
  out.max_text_tokens =
      table.integer("max_text_tokens", defaults.max_text_tokens, within(1, 1 << 20));
  if (out.level == "region")
    out.region_lines = table.integer("region_lines", 4, within(drawn ? 2 : 1, 200));
  if (drawn) {
    read_synthetic(table, out);
    return out;
  }
  out.shards = table.string("shards", kRequired);
  if (out.level == "line" || out.level == "region")
    out.cut_width = table.integer("cut_width", 0, within(0, 1 << 20));
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
