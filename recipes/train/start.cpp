#include "recipes/train/start.h"

#include "core/error.h"
#include "core/io/file.h"
#include "distributed/world.h"
#include "recipes/checkpoint/folder.h"
#include "recipes/config/toml_config.h"
#include "recipes/recipe/differences.h"
#include "recipes/train/adapter_setup.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

namespace lectern {
namespace {

namespace fs = std::filesystem;

/// One rank's own recipe as it would be written now: a config.toml of an older version lacks keys.
std::string resolved_again(const fs::path& config) {
  const std::string text = read_file(config);
  try {
    return parse_recipe(ConfigDocument::parse(text, config.string())).resolved;
  } catch (const Error&) {
    return text;
  }
}

double physical_memory() {
  return static_cast<double>(::sysconf(_SC_PHYS_PAGES)) *
         static_cast<double>(::sysconf(_SC_PAGESIZE));
}

/// Steps of incomplete checkpoints that are newer than `than`, as text.
void say_incomplete(const fs::path& folder, const fs::path& than) {
  const std::int64_t step = checkpoint_step(than.filename().string()).value_or(-1);
  for (const CheckpointEntry& entry : incomplete_checkpoints(folder))
    if (entry.step > step)
      spdlog::warn(
          "{}: is not complete (COMPLETE is missing, or a file has another size) and is "
          "passed over",
          entry.path.string());
}

}  // namespace

void check_same_on_all_ranks(Communicator& world, const std::string& what,
                             const std::string& text) {
  if (world.size() == 1) return;
  const std::vector<std::string> all = all_gather_text(world, text);
  const std::vector<std::string> hosts = all_gather_text(world, host_name());
  std::string message;
  for (std::size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] == all[0]) continue;
    std::string keys;
    for (const ChangedSetting& each : changed_settings(all[0], all[rank]))
      keys += fmt::format("{}{} is {}, not {}", keys.empty() ? "" : ", ", each.key, each.now,
                          each.before);
    message += fmt::format("{}the {} of rank {} on {} is not that of rank 0 on {}: {}",
                           message.empty() ? "" : "; ", what, rank, hosts[rank], hosts[0],
                           keys.empty() ? "other text" : keys);
  }
  if (!message.empty()) fail<ConfigError>(message + " (all ranks must be started with the same)");
}

fs::path checkpoint_to_resume(Communicator& world, const fs::path& folder) {
  const bool is_first = world.rank() == 0;
  std::string damaged;
  for (;;) {
    std::string newest;
    if (is_first)
      if (const auto entry = newest_complete(folder)) newest = entry->path.string();
    newest = all_gather_text(world, newest)[0];
    if (newest.empty()) break;
    // Each rank reads its share of the files.
    const std::vector<std::string> found = together(
        world, [&] { return find_damage(newest, CheckedFiles::all, world.rank(), world.size()); });
    const auto damage = std::find_if(found.begin(), found.end(),
                                     [](const std::string& text) { return !text.empty(); });
    if (damage == found.end()) {
      if (is_first) say_incomplete(folder, newest);
      return newest;
    }
    damaged = *damage;
    together(world, [&]() -> std::string {
      if (is_first)
        spdlog::warn("{}; the checkpoint is passed over and kept as {}", damaged,
                     set_aside(newest).string());
      return "";
    });
  }
  if (is_first) {
    say_incomplete(folder, "");
    if (!damaged.empty() || !incomplete_checkpoints(folder).empty())
      fail<IoError>(fmt::format(
          "{}: none of the checkpoints can be used{}{}; without them (or with another run_dir) the "
          "run begins from the start",
          folder.string(), damaged.empty() ? "" : ": ", damaged));
  }
  return {};
}

void begin_anew(const RunFolder& folder) {
  std::error_code error;
  const bool has_records =
      fs::exists(folder.metrics()) && fs::file_size(folder.metrics(), error) > 0;
  if (!has_records) {
    spdlog::info("{}: no checkpoint yet; training begins from the start", folder.path().string());
    return;
  }
  const fs::path aside = folder.put_aside("metrics.jsonl");
  if (fs::exists(folder.config())) folder.put_aside("config.toml");
  spdlog::warn(
      "{}: no checkpoint in {}: training begins from the start; the records of the run before are "
      "kept as {}",
      folder.path().string(), folder.checkpoints().string(), aside.filename().string());
}

fs::path changed_config(const RunFolder& folder, std::int64_t step) {
  return folder.path() / fmt::format("config-{:06}.toml", step);
}

bool note_changed_settings(const RunFolder& folder, const Recipe& recipe, std::int64_t step) {
  if (!fs::exists(folder.config())) return false;
  std::string changes;
  for (const ChangedSetting& each :
       changed_settings(resolved_again(folder.config()), recipe.resolved))
    if (each.key != "run_dir")  // the folder may have moved
      changes += fmt::format("{}{} was {}, is {}", changes.empty() ? "" : "; ", each.key,
                             each.before, each.now);
  if (changes.empty()) return false;
  spdlog::warn(
      "{}: goes on with other settings than steps 1 to {} were trained with (kept in {}): {}",
      folder.path().string(), step, changed_config(folder, step).filename().string(), changes);
  return true;
}

double encoder_activation_bytes(const Recipe& recipe, const ModelConfig& config) {
  const ViewRecipe& view = recipe.view;
  const auto largest = view.resolutions.empty()
                           ? view.global_size
                           : *std::max_element(view.resolutions.begin(), view.resolutions.end());
  const double images = static_cast<double>(recipe.batch.micro_batch);
  std::vector<ViewCount> views = {{largest, images}};
  if (view.crop) views.push_back({view.tile_size, images});
  const std::vector<bool> trained = trained_units(recipe, config);
  const bool recomputes = recipe.recompute || recipe.memory_gib > 0;
  double kept = 0, block = 0;
  bool has_graph = false;
  for (std::int64_t unit = 0; unit < config.encoder_units(); ++unit) {
    has_graph = has_graph || trained[static_cast<std::size_t>(unit)];
    // A frozen encoder runs view by view and keeps nothing.
    const UnitSizes whole = config.encoder_sizes(unit, views);
    if (has_graph) kept += recomputes ? whole.input_bytes : whole.kept_bytes;
    const double here = has_graph ? whole.block_bytes : whole.block_bytes / images;
    block = std::max(block, here);
  }
  return kept + block;
}

void note_large_views(const Recipe& recipe, const ModelConfig& config) {
  constexpr double kGib = 1 << 30, kMuch = 4 * kGib;
  const double bytes = encoder_activation_bytes(recipe, config), memory = physical_memory();
  if (bytes < std::min(kMuch, memory / 2)) return;
  const auto& resolutions = recipe.view.resolutions;
  spdlog::warn(
      "the encoder's activations of a micro-batch take about {:.1f} GiB ({} = {}, "
      "batch.micro_batch = {}; this machine has {:.1f} GiB)",
      bytes / kGib, resolutions.empty() ? "view.global_size" : "view.resolutions up to",
      resolutions.empty() ? recipe.view.global_size
                          : *std::max_element(resolutions.begin(), resolutions.end()),
      recipe.batch.micro_batch, memory / kGib);
}

}  // namespace lectern
