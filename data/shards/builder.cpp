#include "data/shards/builder.h"

#include "core/error.h"
#include "core/io/file.h"
#include "core/io/files.h"
#include "core/io/folder_lock.h"
#include "core/parallel.h"
#include "core/stopwatch.h"
#include "data/images/image.h"
#include "data/pages/batch.h"
#include "data/pages/page.h"
#include "data/pages/quality.h"
#include "data/shards/inputs.h"
#include "data/shards/published.h"
#include "data/shards/shard.h"
#include "data/text/utf8.h"
#include "data/tokenizer/tokenizer.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <exception>
#include <optional>
#include <set>

namespace lectern {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::string_view kFormat = "lectern-shards";
constexpr int kManifestVersion = 1;
constexpr std::int64_t kPagesAtATime = 64;
constexpr std::int64_t kMostWords = 1 << 20;  // of a page

void check_options(const ShardBuildOptions& options) {
  if (options.pages.empty()) fail<ConfigError>("data shards: needs a folder of pages");
  if (!(options.train_share > 0) || options.train_share > 1)
    fail<ConfigError>(
        fmt::format("data shards: split must be in (0, 1], got {}", options.train_share));
  if (options.train_share < 1 && !options.validation_documents.empty())
    fail<ConfigError>("data shards: give validation documents or a split, not both");
  if (options.pages_per_shard < 0)
    fail<ConfigError>(
        fmt::format("data shards: pages per shard must be >= 0, got {}", options.pages_per_shard));
  if (options.shard_bytes < 1)
    fail<ConfigError>(
        fmt::format("data shards: shard bytes must be >= 1, got {}", options.shard_bytes));
}

bool up_to_date(const fs::path& out, const json& manifest, const std::string& fingerprint) {
  try {
    if (manifest.is_null() || manifest.at("inputs") != fingerprint ||
        manifest.at("version") != kManifestVersion)
      return false;
    return has_its_shards(out, manifest) && fs::exists(out / "tokenizer.json");
  } catch (const std::exception&) {
    return false;
  }
}

SplitSummary summary_of(const std::string& name, const json& split) {
  return {name,
          static_cast<std::int64_t>(split.at("documents").size()),
          split.at("pages"),
          split.at("lines"),
          split.at("words"),
          split.at("tokens"),
          static_cast<std::int64_t>(split.at("shards").size()),
          split.at("bytes")};
}

/// A page as the shard stores it. Throws Error with the reason when it cannot be used.
ShardPage prepare(const detail::PageFile& file, const Tokenizer& tokenizer) {
  const Page page = load_page(file.path);
  if (page.document != file.document)
    fail<IoError>(fmt::format("document must be {}, got {}", file.document, page.document));
  PageQuality quality;
  quality.min_characters = 1;  // how much is enough was decided when the pages were made
  quality.max_rotated_fraction = 1;
  quality.keeps_right_to_left = true;  // what poppler mixes up was dropped when they were made
  if (const std::string reason = reason_to_drop(page, quality); !reason.empty())
    fail<IoError>(reason);
  ShardPage out;
  out.id = fmt::format("{}/{:04}", page.document, page.number);
  out.document = page.document;
  out.source = page.source;
  out.number = page.number;
  out.width = page.width;
  out.height = page.height;
  out.dots_per_inch = page.dots_per_inch;
  const std::string png = read_file(page.image);
  out.picture.assign(png.begin(), png.end());
  const Image image = decode_image(out.picture, page.image.string());
  if (image.width != page.width || image.height != page.height)
    fail<IoError>(fmt::format("picture must be {} x {}, got {} x {}", page.width, page.height,
                              image.width, image.height));
  out.text = page.text;
  out.ids = tokenizer.encode(page.text);
  for (const std::int32_t id : out.ids)
    if (tokenizer.is_special(id))
      fail<IoError>(fmt::format("text holds the special token {}",
                                tokenizer.id_to_token(id).value_or(std::to_string(id))));
  for (const Line& line : page.lines) {
    out.lines.push_back(line.text, line.box, tokenizer.encode(line.text));
    out.blocks.push_back(static_cast<std::int32_t>(line.block));
    for (const Word& word : line.words)
      out.words.push_back(word.text, word.box, tokenizer.encode(word.text));
    out.first_word.push_back(out.words.size());
  }
  if (out.words.size() > kMostWords)
    fail<IoError>(fmt::format("must have at most {} words, got {}", kMostWords, out.words.size()));
  return out;
}

/// Numbers of the manifest's "mixture".
struct DocumentCounts {
  std::string source;
  std::int64_t pages = 0, tokens = 0;
};

class Builder {
 public:
  Builder(const ShardBuildOptions& options, detail::ShardInputs inputs, const Tokenizer& tokenizer,
          const std::string& tokenizer_sha256)
      : options_(options),
        inputs_(std::move(inputs)),
        tokenizer_(tokenizer),
        tokenizer_sha256_(tokenizer_sha256),
        partial_(plain_path(options.out) += ".partial"),
        folder_(partial_ / "new"),
        dropped_(inputs_.dropped) {
    fs::create_directories(partial_);
    lock_.emplace(partial_, fmt::format("lectern data shards --out {}", options.out.string()));
  }
  Builder(const Builder&) = delete;
  Builder& operator=(const Builder&) = delete;
  /// A build that failed leaves nothing behind; after publish() nothing is left to remove.
  ~Builder() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
    lock_.reset();
    fs::remove(partial_, ignored);  // stays where another process has locked it since
  }

  /// Writes everything under the temporary name and returns the manifest.
  json build() {
    for (const auto& entry : fs::directory_iterator(partial_))  // of a process that was killed
      if (entry.is_directory()) fs::remove_all(entry.path());
    fs::create_directories(folder_);
    const detail::HeldOut validation = choose_validation(options_, inputs_);
    shares_document_ = !validation.pages.empty();
    json splits = json::object();
    for (const std::string name : {"train", "validation"}) {
      std::vector<detail::PageFile> files;
      for (const detail::PageFile& file : inputs_.files)
        if (validation.contains(file) == (name == "validation")) files.push_back(file);
      if (!files.empty()) splits[name] = build_split(name, files);
    }
    if (!splits.contains("train") || splits["train"]["pages"] == 0)
      fail<IoError>(
          fmt::format("data shards: no page is left for training: {} dropped{}", dropped_.size(),
                      dropped_.empty() ? ""
                                       : fmt::format("; the first: {}: {}", dropped_.front().page,
                                                     dropped_.front().reason)));
    write_file(folder_ / "tokenizer.json", tokenizer_.json());
    const json manifest = make_manifest(std::move(splits));
    write_file(folder_ / "manifest.json",
               manifest.dump(1, ' ', false, json::error_handler_t::replace) + "\n");
    return manifest;
  }

  /// Puts the new folder in the place of the old one.
  void publish() const { publish_folder(folder_, plain_path(options_.out)); }

  const std::vector<DroppedShardPage>& dropped() const { return dropped_; }

 private:
  /// Prepares neighbouring pages at the same time; a page's fault is its reason.
  std::vector<ShardPage> prepare_range(const std::vector<detail::PageFile>& files,
                                       std::size_t begin, std::size_t end) {
    std::vector<ShardPage> pages(end - begin);
    std::vector<std::string> reasons(end - begin);
    std::vector<std::exception_ptr> faults(end - begin);
    parallel_tasks(static_cast<std::int64_t>(end - begin), [&](std::int64_t i) {
      const auto at = static_cast<std::size_t>(i);
      try {
        pages[at] = prepare(files[begin + at], tokenizer_);
      } catch (const Error& error) {
        reasons[at] = detail::short_reason(error, files[begin + at].path);
      } catch (...) {
        faults[at] = std::current_exception();
      }
    });
    std::vector<ShardPage> kept;
    for (std::size_t i = 0; i < pages.size(); ++i) {
      if (faults[i] != nullptr) std::rethrow_exception(faults[i]);
      if (reasons[i].empty() && !ids_.insert(pages[i].id).second)
        reasons[i] = fmt::format("page {} was given twice", pages[i].id);
      if (reasons[i].empty())
        kept.push_back(std::move(pages[i]));
      else
        dropped_.push_back({files[begin + i].path.string(), reasons[i]});
    }
    return kept;
  }

  json build_split(const std::string& name, const std::vector<detail::PageFile>& files) {
    json split = {{"documents", json::array()}, {"shards", json::array()}, {"bytes", 0}};
    std::int64_t pages = 0, lines = 0, words = 0, tokens = 0, characters = 0;
    fs::create_directories(folder_ / name);
    ShardWriter writer;
    const auto flush = [&] {
      if (writer.pages() > 0) split["shards"].push_back(write_shard(writer, name, split));
    };
    for (std::size_t begin = 0; begin < files.size(); begin += kPagesAtATime) {
      const std::size_t end = std::min(begin + kPagesAtATime, files.size());
      for (const ShardPage& page : prepare_range(files, begin, end)) {
        writer.add(page);
        ++pages;
        lines += page.lines.size();
        words += page.words.size();
        tokens += static_cast<std::int64_t>(page.ids.size());
        characters += count_characters(page.text);
        count(page, name);
        if (writer.bytes() >= options_.shard_bytes || writer.pages() == options_.pages_per_shard)
          flush();
      }
      done_ += static_cast<std::int64_t>(end - begin);
      report();
    }
    flush();
    for (const auto& [key, counts] : documents_)
      if (key.second == name) split["documents"].push_back(key.first);
    split["pages"] = pages;
    split["lines"] = lines;
    split["words"] = words;
    split["tokens"] = tokens;
    split["characters"] = characters;
    return split;
  }

  json write_shard(ShardWriter& writer, const std::string& split_name, json& split) {
    const std::string file = fmt::format("shard-{:05}.h5", split["shards"].size());
    const fs::path path = folder_ / split_name / file;
    const std::int64_t pages = writer.pages();
    writer.write(path, tokenizer_sha256_);
    const auto bytes = static_cast<std::int64_t>(fs::file_size(path));
    split["bytes"] = split["bytes"].get<std::int64_t>() + bytes;
    return {{"file", file}, {"sha256", sha256_of_file(path)}, {"bytes", bytes}, {"pages", pages}};
  }

  void count(const ShardPage& page, const std::string& split) {
    DocumentCounts& counts = documents_[{page.document, split}];
    counts.source = page.source;
    ++counts.pages;
    counts.tokens += static_cast<std::int64_t>(page.ids.size());
  }

  void report() const {
    if (!options_.progress) return;
    options_.progress({done_, static_cast<std::int64_t>(inputs_.files.size()), watch_.seconds()});
  }

  json make_manifest(json splits) const {
    json mixture = json::array(), dropped = json::array();
    for (const auto& [key, counts] : documents_) {
      const auto& [id, split] = key;
      const auto known = inputs_.documents.find(id);
      const bool listed = known != inputs_.documents.end();
      const double tokens = splits[split]["tokens"];
      mixture.push_back(
          {{"document", id},
           {"source", counts.source},
           {"sha256", listed ? known->second.sha256 : ""},
           {"licence", listed ? known->second.licence : ""},
           {"split", split},
           {"pages", counts.pages},
           {"tokens", counts.tokens},
           {"share", tokens > 0 ? static_cast<double>(counts.tokens) / tokens : 0.0}});
    }
    for (const DroppedShardPage& page : dropped_)
      dropped.push_back({{"page", page.page}, {"reason", page.reason}});
    return {{"format", kFormat},
            {"version", kManifestVersion},
            {"inputs", inputs_.fingerprint},
            {"settings",
             {{"split", options_.train_share},
              {"validation_documents", options_.validation_documents},
              {"held_out", shares_document_ ? "pages" : "documents"},
              {"seed", options_.seed},
              {"pages_per_shard", options_.pages_per_shard},
              {"shard_bytes", options_.shard_bytes}}},
            {"tokenizer",
             {{"source", options_.tokenizer.string()},
              {"sha256", tokenizer_sha256_},
              {"tokens", tokenizer_.vocab_size()}}},
            {"splits", std::move(splits)},
            {"mixture", std::move(mixture)},
            {"dropped", std::move(dropped)},
            {"dropped_before", inputs_.dropped_before}};
  }

  const ShardBuildOptions& options_;
  detail::ShardInputs inputs_;
  const Tokenizer& tokenizer_;
  std::string tokenizer_sha256_;
  fs::path partial_, folder_;  // the second is in the first, and becomes `out`
  std::optional<FolderLock> lock_;
  std::vector<DroppedShardPage> dropped_;
  std::set<std::string> ids_;
  std::map<std::pair<std::string, std::string>, DocumentCounts> documents_;  // by id and split
  bool shares_document_ = false;
  std::int64_t done_ = 0;
  Stopwatch watch_;
};

ShardBuildSummary summarise(const json& manifest) {
  ShardBuildSummary summary;
  for (const auto& [name, split] : manifest.at("splits").items())
    summary.splits.push_back(summary_of(name, split));
  for (const json& page : manifest.at("dropped"))
    summary.dropped.push_back({page.at("page"), page.at("reason")});
  summary.shares_document = manifest.at("settings").value("held_out", "documents") == "pages";
  return summary;
}

}  // namespace

ShardBuildSummary build_shards(const ShardBuildOptions& options) {
  check_options(options);
  const Stopwatch watch;
  const Tokenizer tokenizer = Tokenizer::load(options.tokenizer);
  const std::string tokenizer_sha256 = sha256_of(tokenizer.json());
  detail::ShardInputs inputs = detail::find_inputs(options, tokenizer_sha256);
  const json old = published_manifest(options.out, kFormat);
  check_replaceable(options.out, old, "data shards");
  ShardBuildSummary summary;
  try {
    if (up_to_date(options.out, old, inputs.fingerprint)) {
      summary = summarise(old);
      summary.up_to_date = true;
      return summary;
    }
    Builder builder(options, std::move(inputs), tokenizer, tokenizer_sha256);
    // Another process may just have made it.
    check_replaceable(options.out, published_manifest(options.out, kFormat), "data shards");
    summary = summarise(builder.build());
    builder.publish();
  } catch (const fs::filesystem_error& error) {
    fail<IoError>(
        fmt::format("{}: cannot be written: {}", error.path1().string(), error.code().message()));
  } catch (const json::exception& error) {
    fail<IoError>(
        fmt::format("{}: manifest.json is damaged: {}", options.out.string(), error.what()));
  }
  summary.seconds = watch.seconds();
  return summary;
}

}  // namespace lectern
