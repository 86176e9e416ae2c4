// lectern data synthetic: draws samples and writes them, to look at or to use elsewhere.
#include "core/error.h"
#include "core/io/file.h"
#include "core/stopwatch.h"
#include "data/synthetic/contact_sheet.h"
#include "data/synthetic/synthetic.h"
#include "recipes/commands/command.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <memory>
#include <string>
#include <vector>

namespace lectern::commands {
namespace {

struct SyntheticArguments {
  std::vector<std::string> text, exclude, scripts = {"latin"};
  std::string out, sheet, level = "word";
  SyntheticOptions options;
  Placement placement;
  std::int64_t count = 48, first = 0, columns = 8, zoom = 1;
  bool ascii_only = false, json = false;
};

void run_synthetic(SyntheticArguments& arguments) {
  if (arguments.count < 1)
    fail<ConfigError>(fmt::format("data synthetic: --count must be >= 1, got {}", arguments.count));
  CorpusOptions corpus;
  corpus.text.assign(arguments.text.begin(), arguments.text.end());
  corpus.exclude = arguments.exclude;
  corpus.ascii_only = arguments.ascii_only;
  corpus.scripts.clear();
  for (const std::string& name : arguments.scripts) corpus.scripts.push_back(script_from(name));
  arguments.options.level = level_from(arguments.level);
  const SyntheticSource source(TextCorpus(corpus), arguments.options);

  std::vector<ContactEntry> entries;
  const Stopwatch watch;
  for (std::int64_t i = 0; i < arguments.count; ++i) {
    const auto index = static_cast<std::uint64_t>(arguments.first + i);
    Image picture = arguments.options.level == Level::page
                        ? source.draw_page(index)
                        : source.draw(index, arguments.placement);
    entries.push_back({std::move(picture), source.text(index), source.face(index)});
  }
  const double seconds = watch.seconds();
  if (!arguments.out.empty()) {
    std::filesystem::create_directories(arguments.out);
    for (std::size_t i = 0; i < entries.size(); ++i) {
      const std::string stem =
          fmt::format("{}-{:06}", arguments.level, arguments.first + static_cast<std::int64_t>(i));
      write_png(entries[i].picture, std::filesystem::path(arguments.out) / (stem + ".png"));
      write_file(std::filesystem::path(arguments.out) / (stem + ".txt"), entries[i].caption);
    }
  }
  if (!arguments.sheet.empty())
    write_png(contact_sheet(entries, arguments.columns, arguments.zoom), arguments.sheet);
  const double speed = static_cast<double>(arguments.count) / std::max(seconds, 1e-9);
  if (arguments.json) {
    const nlohmann::json result = {{"level", arguments.level},
                                   {"count", arguments.count},
                                   {"samples_per_second", speed},
                                   {"words", source.corpus().words()},
                                   {"words_dropped", source.corpus().dropped()},
                                   {"faces", source.faces().size()},
                                   {"missing_families", source.missing_families()}};
    fmt::print("{}\n", result.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    return;
  }
  fmt::print("{} {}s, {:.0f} a second on one core; {} words of text, {} left out; {} faces\n",
             arguments.count, arguments.level, speed, source.corpus().words(),
             source.corpus().dropped(), source.faces().size());
  for (const std::string& family : source.missing_families())
    fmt::print("not installed: {}\n", family);
}

void add_look(Command command, SyntheticOptions& o) {
  command.add_option("--font-size", o.font_size, "Least and largest em, pixels").show_default();
  command.add_option("--bold-share", o.bold_share, "").show_default();
  command.add_option("--italic-share", o.italic_share, "").show_default();
  command.add_option("--stretch", o.stretch, "Widths vary by up to this factor").show_default();
  command.add_option("--rotation-degrees", o.rotation_degrees, "Largest, at most 2").show_default();
  command.add_option("--blur", o.blur, "Largest standard deviation, pixels").show_default();
  command.add_option("--noise", o.noise, "Largest standard deviation, grey levels").show_default();
  command.add_option("--jpeg-share", o.jpeg_share, "Samples that went through JPEG").show_default();
  command.add_option("--jpeg-quality", o.jpeg_quality, "Least").show_default();
  command.add_option("--ink", o.ink, "Lightest ink, grey level").show_default();
  command.add_option("--paper", o.paper, "Darkest paper, grey level").show_default();
  command.add_option("--colour-share", o.colour_share, "Samples in colour").show_default();
  command.add_option("--page-width", o.page_width, "Least and largest, pixels").show_default();
}

}  // namespace

void add_data_synthetic(Command data) {
  auto arguments = std::make_shared<SyntheticArguments>();
  SyntheticOptions& o = arguments->options;
  Command command = data.add_subcommand(
      "synthetic", "Text -> drawn samples (.png, .txt) and a contact sheet to look at");
  command.add_option("--text", arguments->text, "UTF-8 files, or folders of .txt").required();
  command.add_option("--exclude", arguments->exclude, "Files whose names begin so are left out");
  command.add_option("--out", arguments->out, "Folder for one .png and .txt a sample");
  command.add_option("--contact-sheet", arguments->sheet, "One PNG of all samples");
  command.add_option("--count", arguments->count, "Samples").show_default();
  command.add_option("--first", arguments->first, "Index of the first").show_default();
  command.add_option("--level", arguments->level, "character, word, line, region or page")
      .show_default();
  command.add_option("--seed", o.seed, "").show_default();
  command.add_option("--fonts", o.fonts, "Families; none: the default ones that are installed");
  command.add_option("--scripts", arguments->scripts, "latin, greek, cyrillic, cjk").show_default();
  command.add_flag("--ascii-only", arguments->ascii_only, "Leave out words with other characters");
  command.add_option("--min-characters", o.min_characters, "Of a word or line").show_default();
  command.add_option("--max-characters", o.max_characters, "Of a word or line").show_default();
  command.add_option("--region-lines", o.region_lines, "Most lines of a region").show_default();
  command.add_option("--distinct-share", o.distinct_share, "Words from the list of different ones")
      .show_default();
  command.add_option("--random-share", o.random_share, "Words of random characters").show_default();
  add_look(command, o);
  command.add_option("--view", arguments->placement.size, "Side of the square view, pixels")
      .show_default();
  command.add_option("--margin", arguments->placement.margin, "").show_default();
  command.add_option("--jitter", arguments->placement.jitter, "Pixels that a text moves by")
      .show_default();
  command.add_option("--columns", arguments->columns, "Of the contact sheet").show_default();
  command.add_option("--zoom", arguments->zoom, "Of the contact sheet").show_default();
  command.add_flag("--json", arguments->json, "Print one JSON object");
  command.callback([arguments] { run_synthetic(*arguments); });
}

}  // namespace lectern::commands
