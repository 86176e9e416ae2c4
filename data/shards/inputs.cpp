#include "data/shards/inputs.h"

#include "core/error.h"
#include "core/io/files.h"
#include "core/random.h"
#include "data/pages/batch.h"
#include "data/pages/page.h"
#include "data/shards/shard.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <tuple>

namespace lectern::detail {
namespace {

namespace fs = std::filesystem;

/// A folder without pages.json: every page file is read for its document.
void list_files(const fs::path& folder, ShardInputs& inputs) {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".json") paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  for (const fs::path& path : paths) {
    try {
      inputs.files.push_back({path, load_page(path).document});
    } catch (const Error& error) {
      inputs.dropped.push_back({path.string(), short_reason(error, path)});
    }
  }
}

void add_folder(const fs::path& folder, ShardInputs& inputs) {
  std::error_code error;
  if (!fs::is_directory(folder, error))
    fail<IoError>(fmt::format("{}: must be a folder of pages", folder.string()));
  const std::optional<PageList> list = find_page_list(folder);
  if (!list) return list_files(folder, inputs);
  for (const DocumentEntry& document : list->documents) {
    inputs.documents[document.id] = document;
    inputs.dropped_before += static_cast<std::int64_t>(document.dropped.size());
  }
  for (const PageEntry& page : list->pages)
    inputs.files.push_back({folder / (page.stem + ".json"), page.document});
}

/// Name, size and time of a file; a missing one is found when it is read.
std::string stamp(const fs::path& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) return fmt::format("{} missing\n", path.string());
  const auto time = fs::last_write_time(path, error).time_since_epoch().count();
  return fmt::format("{} {} {}\n", path.string(), size, static_cast<std::int64_t>(time));
}

std::uint64_t order_key(const std::string& name, std::uint64_t seed) {
  Random random(seed, "shards/" + name);
  const std::uint64_t high = random.next();
  return high << 32 | random.next();
}

/// Pages that follow each other, from a place that the seed draws: fewer of them have a neighbour
/// in training than pages drawn one by one would.
std::set<fs::path> pages_of_only_document(const ShardBuildOptions& options,
                                          const ShardInputs& inputs) {
  std::vector<fs::path> paths;
  for (const PageFile& file : inputs.files) paths.push_back(file.path);
  std::sort(paths.begin(), paths.end());
  if (paths.size() < 2)
    fail<ConfigError>(
        fmt::format("data shards: split must be 1 for a single page, got {}; the only page is {}; "
                    "add pages or documents",
                    options.train_share, paths.front().string()));
  const double wanted = (1 - options.train_share) * static_cast<double>(paths.size());
  const std::size_t count =
      std::clamp<std::size_t>(static_cast<std::size_t>(std::llround(wanted)), 1, paths.size() - 1);
  const std::size_t first = order_key("only document", options.seed) % (paths.size() - count + 1);
  const auto begin = paths.begin() + static_cast<std::ptrdiff_t>(first);
  return {begin, begin + static_cast<std::ptrdiff_t>(count)};
}

}  // namespace

ShardInputs find_inputs(const ShardBuildOptions& options, const std::string& tokenizer_sha256) {
  ShardInputs inputs;
  try {
    for (const fs::path& folder : options.pages) add_folder(folder, inputs);
  } catch (const fs::filesystem_error& error) {
    fail<IoError>(
        fmt::format("{}: cannot be listed: {}", error.path1().string(), error.code().message()));
  }
  if (inputs.files.empty())
    fail<IoError>(fmt::format("{}: must hold pages (<page>.json), got {} that cannot be read{}",
                              options.pages.front().string(), inputs.dropped.size(),
                              inputs.dropped.empty() ? "" : ": " + inputs.dropped.front().reason));
  std::string facts = fmt::format("shards {} tokenizer {} split {} {} seed {} size {} {}\n",
                                  kShardVersion, tokenizer_sha256, options.train_share,
                                  fmt::join(options.validation_documents, ","), options.seed,
                                  options.pages_per_shard, options.shard_bytes);
  for (const PageFile& file : inputs.files) {
    fs::path image = file.path;
    facts += stamp(file.path) + stamp(image.replace_extension(".png"));
  }
  for (const DroppedShardPage& page : inputs.dropped) facts += stamp(page.page);
  inputs.fingerprint = sha256_of(facts);
  // Neighbours in a shard are of different documents, which sampling in windows relies on.
  std::vector<std::tuple<std::uint64_t, std::string, std::string>> keyed;
  for (PageFile& file : inputs.files)
    keyed.emplace_back(order_key(file.path.filename().string(), options.seed), file.path.string(),
                       std::move(file.document));
  std::sort(keyed.begin(), keyed.end());
  inputs.files.clear();
  for (auto& [key, path, document] : keyed) inputs.files.push_back({path, std::move(document)});
  return inputs;
}

HeldOut choose_validation(const ShardBuildOptions& options, const ShardInputs& inputs) {
  std::map<std::string, std::int64_t> pages;
  for (const PageFile& file : inputs.files) ++pages[file.document];
  std::set<std::string> chosen;
  for (const std::string& document : options.validation_documents) {
    if (!pages.contains(document)) {
      std::vector<std::string> known;
      for (const auto& [name, count] : pages) known.push_back(name);
      fail<ConfigError>(fmt::format("data shards: validation document must be one of {}, got {}",
                                    fmt::join(known, ", "), document));
    }
    chosen.insert(document);
  }
  if (!options.validation_documents.empty() || options.train_share >= 1) return {chosen, {}};
  if (pages.size() == 1) return {{}, pages_of_only_document(options, inputs)};
  std::vector<std::pair<std::uint64_t, std::string>> order;
  for (const auto& [document, count] : pages)
    order.emplace_back(order_key("document/" + document, options.seed), document);
  std::sort(order.begin(), order.end());
  const double wanted = (1 - options.train_share) * static_cast<double>(inputs.files.size());
  double taken = 0;
  // A document is put aside when that brings the share nearer to what was asked for.
  for (const auto& [key, document] : order) {
    const auto more = static_cast<double>(pages[document]);
    const bool last_of_training = chosen.size() + 1 == pages.size();
    if (last_of_training || std::abs(taken + more - wanted) >= std::abs(taken - wanted)) continue;
    chosen.insert(document);
    taken += more;
  }
  if (chosen.empty() && pages.size() > 1) {
    const auto smallest =
        std::min_element(pages.begin(), pages.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    chosen.insert(smallest->first);
  }
  return {chosen, {}};
}

}  // namespace lectern::detail
