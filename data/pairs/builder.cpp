#include "data/pairs/builder.h"

#include "core/error.h"
#include "core/io/file.h"
#include "core/io/files.h"
#include "core/io/folder_lock.h"
#include "core/parallel.h"
#include "core/stopwatch.h"
#include "data/pairs/key_set.h"
#include "data/pairs/prepare.h"
#include "data/pairs/progress_files.h"
#include "data/pairs/reader.h"
#include "data/pairs/scan.h"
#include "data/shards/published.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <exception>
#include <optional>
#include <utility>

namespace lectern {
namespace {

namespace fs = std::filesystem;
using detail::PairItem;
using nlohmann::json;

constexpr std::string_view kPairsFormat = "lectern-pairs";
constexpr int kPairsVersion = 1;
constexpr std::size_t kItemsAtATime = 32;       // whose pictures are held at once
constexpr std::int64_t kMostRecords = 1 << 16;  // of a shard: short texts have few bytes
constexpr const char* kSplits[] = {"train", "validation"};

void check_pair_options(const PairBuildOptions& o) {
  if (o.inputs.empty()) fail<ConfigError>("data pairs: needs an input");
  if (!(o.train_share > 0) || o.train_share > 1)
    fail<ConfigError>(fmt::format("data pairs: split must be in (0, 1], got {}", o.train_share));
  if (o.train_share < 1 && !o.validation.empty())
    fail<ConfigError>("data pairs: give a validation input or a split, not both");
  if (o.documents != "auto" && o.documents != "picture" && o.documents != "folder")
    fail<ConfigError>(fmt::format(
        "data pairs: documents must be auto, picture or folder, got \"{}\"", o.documents));
  if (o.records_per_shard < 0 || o.shard_bytes < 1)
    fail<ConfigError>(
        fmt::format("data pairs: records and bytes per shard must be >= 0 and >= 1, got {} and {}",
                    o.records_per_shard, o.shard_bytes));
  if (!(o.dots_per_inch >= 10 && o.dots_per_inch <= 1200))
    fail<ConfigError>(
        fmt::format("data pairs: dpi must be in 10 .. 1200, got {}", o.dots_per_inch));
}

json empty_split() {
  return {{"records", 0}, {"pictures", 0},          {"boxes", 0}, {"documents", 0}, {"tokens", 0},
          {"bytes", 0},   {"shards", json::array()}};
}

void add_to(json& number, std::int64_t more) { number = number.get<std::int64_t>() + more; }

/// A kept record in the file of keys: content, picture, document.
struct KeptKeys {
  detail::PairKey content, picture, document;
};

/// An item on its way into a shard.
struct Pending {
  PairItem item;
  std::string id, document;
  std::size_t input = 0;
  std::int64_t place = 0;  // among all items
  std::vector<detail::PreparedPair> prepared;
  std::exception_ptr fault;
};

class PairBuilder {
 public:
  PairBuilder(const PairBuildOptions& options, const std::vector<detail::PairInput>& inputs,
              const detail::PairScan& scan, const Tokenizer& tokenizer,
              const std::string& tokenizer_sha256)
      : options_(options),
        inputs_(inputs),
        scan_(scan),
        tokenizer_(tokenizer),
        tokenizer_sha256_(tokenizer_sha256),
        partial_(plain_path(options.out) += ".partial"),
        folder_(partial_ / "new") {
    fs::create_directories(partial_);
    lock_.emplace(partial_, fmt::format("lectern data pairs --out {}", options.out.string()));
  }
  PairBuilder(const PairBuilder&) = delete;
  PairBuilder& operator=(const PairBuilder&) = delete;
  /// What has a whole shard is kept for the next call; after publish() nothing is left.
  ~PairBuilder() {
    std::error_code ignored;
    if (!has_progress_) remove_work();
    lock_.reset();
    fs::remove(partial_, ignored);
  }

  std::int64_t went_on_after() const { return went_on_after_; }

  /// Writes everything under the temporary name and returns the manifest.
  json build() {
    begin();
    for (std::size_t split = 0; split < std::size(kSplits); ++split) {
      if (split < split_ || (split == 1 && !wants_validation())) continue;
      if (split > split_) {
        split_ = split;
        next_ = 0;
      }
      build_split();
    }
    check_inputs();
    write_file(folder_ / "tokenizer.json", tokenizer_.json());
    const json manifest = make_manifest();
    write_file(folder_ / "manifest.json",
               manifest.dump(1, ' ', false, json::error_handler_t::replace) + "\n");
    return manifest;
  }

  void publish() {
    publish_folder(folder_, plain_path(options_.out));
    has_progress_ = false;
  }

 private:
  void remove_work() const {
    std::error_code ignored;
    for (const char* name : {"progress.json", "keys.bin", "new"})
      fs::remove_all(partial_ / name, ignored);
  }

  bool wants_validation() const { return !scan_.held_out.empty() || !options_.validation.empty(); }

  /// Takes up what an interrupted build left, or begins.
  void begin() {
    const json progress = detail::load_progress(partial_, scan_.fingerprint);
    if (progress.is_null()) {
      remove_work();
      for (const char* name : kSplits) splits_[name] = empty_split();
      kept_.assign(inputs_.size(), 0);
    } else {
      has_progress_ = true;
      detail::remove_unfinished(partial_, progress);
      split_ = progress.at("split");
      next_ = progress.at("next");
      splits_ = progress.at("splits");
      drops_ = progress.at("dropped");
      kept_ = progress.at("kept").get<std::vector<std::int64_t>>();
      done_ = done_before_ = progress.at("done");
      for (const char* name : kSplits)
        went_on_after_ += static_cast<std::int64_t>(splits_[name]["shards"].size());
    }
    for (const char* name : kSplits) fs::create_directories(folder_ / name);
    const bool goes_on = !progress.is_null();
    dropped_file_.emplace(folder_ / "dropped.jsonl",
                          goes_on ? progress.at("dropped_bytes").get<std::int64_t>() : 0);
    keys_file_.emplace(partial_ / "keys.bin",
                       goes_on ? progress.at("keys_bytes").get<std::int64_t>() : 0);
    if (goes_on) read_keys();
  }

  void read_keys() {
    std::ifstream in(partial_ / "keys.bin", std::ios::binary);
    KeptKeys keys;
    const std::int64_t of_training = splits_["train"]["records"];
    for (std::int64_t i = 0; in.read(reinterpret_cast<char*>(&keys), sizeof keys); ++i)
      remember(keys, i < of_training ? 0 : 1);
  }

  void remember(const KeptKeys& keys, std::size_t split) {
    contents_[split].insert(keys.content);
    documents_[split].insert(keys.document);
    if (split == 0) training_pictures_.insert(keys.picture);
  }

  json& split() { return splits_[kSplits[split_]]; }

  /// Whether the item belongs to the split that is written; what has no document is listed with the
  /// first.
  bool is_of_split(const detail::PairInput& input, const PairItem& item,
                   const std::string& document) const {
    if (input.is_validation) return split_ == 1;
    const bool is_held_out = !item.unusable && scan_.holds_out(document);
    return is_held_out == (split_ == 1);
  }

  void build_split() {
    ShardWriter writer;
    std::vector<Pending> pending;
    std::int64_t place = 0;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const auto reader = detail::open_input(inputs_[i].path, detail::form_options(options_));
      std::int64_t number = 0;
      for (PairItem item; reader->next(item); ++place) {
        std::string id = id_of(inputs_[i], item, number++);
        if (place < next_) continue;
        std::string document = document_of(item, id, scan_.rule);
        if (!is_of_split(inputs_[i], item, document)) continue;
        pending.push_back({std::move(item), std::move(id), std::move(document), i, place, {}, {}});
        if (pending.size() == kItemsAtATime) take_in(pending, writer);
      }
    }
    take_in(pending, writer);
    next_ = place;
    if (writer.pages() > 0) flush(writer);
  }

  void take_in(std::vector<Pending>& pending, ShardWriter& writer) {
    parallel_tasks(static_cast<std::int64_t>(pending.size()), [&](std::int64_t i) {
      Pending& each = pending[static_cast<std::size_t>(i)];
      try {
        each.prepared.resize(1);
        each.prepared[0].unusable = each.item.unusable;
        if (!each.item.unusable)
          each.prepared = prepare_item(each.item, each.id, inputs_[each.input].path.string(),
                                       each.document, options_, tokenizer_);
      } catch (...) {
        each.fault = std::current_exception();
      }
    });
    for (Pending& each : pending) {
      if (each.fault) std::rethrow_exception(each.fault);
      for (detail::PreparedPair& pair : each.prepared) keep_or_drop(each, pair, writer);
      next_ = each.place + 1;
      ++done_;
      if (writer.bytes() >= options_.shard_bytes || writer.pages() >= kMostRecords ||
          (options_.records_per_shard > 0 && writer.pages() >= options_.records_per_shard))
        flush(writer);
    }
    pending.clear();
    report();
  }

  void keep_or_drop(const Pending& from, detail::PreparedPair& pair, ShardWriter& writer) {
    if (pair.unusable) return drop(from, pair.page, pair.unusable);
    const ShardPage& record = pair.record;
    const std::string picture =
        sha256_of({reinterpret_cast<const char*>(record.picture.data()), record.picture.size()});
    const KeptKeys keys{
        detail::key_of_text(
            fmt::format("{}|{}:{}|{}", picture, record.prompt.size(), record.prompt, record.text)),
        detail::key_of_hash(picture), detail::key_of_text(record.document)};
    if (contents_[split_].contains(keys.content))
      return drop(from, pair.page,
                  {"duplicate", "picture, prompt and answer are those of an earlier record"});
    if (split_ == 1 && contents_[0].contains(keys.content))
      return drop(from, pair.page,
                  {"in both splits", "picture, prompt and answer are in training, too"});
    if (split_ == 1 && record.has_picture() && training_pictures_.contains(keys.picture))
      return drop(from, pair.page, {"in both splits", "the picture is in training, too"});
    try {
      writer.add(record);
    } catch (const ConfigError& error) {
      return drop(from, pair.page, {"unusable", error.what()});
    }
    count(from, record, keys);
  }

  void count(const Pending& from, const ShardPage& record, const KeptKeys& keys) {
    json& to = split();
    add_to(to["records"], 1);
    add_to(to["pictures"], record.has_picture() ? 1 : 0);
    add_to(to["boxes"], static_cast<std::int64_t>(record.boxes.size()));
    add_to(to["tokens"], static_cast<std::int64_t>(record.ids.size()));
    if (documents_[split_].insert(keys.document)) add_to(to["documents"], 1);
    ++kept_[from.input];
    remember(keys, split_);
    keys_file_->append({reinterpret_cast<const char*>(&keys), sizeof keys});
  }

  void drop(const Pending& from, std::int64_t page, const detail::UnusableItem& why) {
    const PairItem& item = from.item;
    const bool is_of_folder = item.line == 0;
    fs::path file = inputs_[from.input].path;
    if (is_of_folder) file /= item.name;
    json line = {{"file", file.string()}, {"reason", why.kind}, {"detail", why.reason}};
    if (!is_of_folder) line["line"] = item.line;
    if (page > 0) line["page"] = page;
    dropped_file_->append(line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n");
    json& kind = drops_[why.kind];
    if (kind.is_null())
      kind = {{"records", 0},
              {"first", fmt::format("{}{}{}: {}", file.string(),
                                    is_of_folder ? "" : fmt::format(", line {}", item.line),
                                    page > 0 ? fmt::format(", page {}", page) : "", why.reason)}};
    add_to(kind["records"], 1);
    if (first_drops_.size() < inputs_.size()) first_drops_.resize(inputs_.size());
    if (first_drops_[from.input].empty())
      first_drops_[from.input] = fmt::format(
          "{}{}", is_of_folder ? item.name : fmt::format("line {}", item.line), ": " + why.reason);
  }

  void flush(ShardWriter& writer) {
    json& to = split();
    const std::string file = fmt::format("shard-{:05}.h5", to["shards"].size());
    const fs::path path = folder_ / kSplits[split_] / file;
    const std::int64_t records = writer.pages();
    writer.write(path, tokenizer_sha256_);
    const auto bytes = static_cast<std::int64_t>(fs::file_size(path));
    add_to(to["bytes"], bytes);
    to["shards"].push_back(
        {{"file", file}, {"sha256", sha256_of_file(path)}, {"bytes", bytes}, {"pages", records}});
    dropped_file_->flush();
    keys_file_->flush();
    const json progress = {{"inputs_sha256", scan_.fingerprint},
                           {"split", split_},
                           {"next", next_},
                           {"done", done_},
                           {"dropped_bytes", dropped_file_->bytes()},
                           {"keys_bytes", keys_file_->bytes()},
                           {"splits", splits_},
                           {"kept", kept_},
                           {"dropped", drops_}};
    write_file(partial_ / "progress.json",
               progress.dump(-1, ' ', false, json::error_handler_t::replace));
    has_progress_ = true;
  }

  void report() const {
    if (options_.progress)
      options_.progress({false, done_, scan_.records, watch_.seconds(), done_before_});
  }

  /// Such a file is the wrong one, whatever the others hold.
  void check_inputs() {
    dropped_file_->flush();
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      if (kept_[i] > 0) continue;
      has_progress_ = false;  // there is nothing to go on with
      const std::string first = i < first_drops_.size() ? first_drops_[i] : "";
      fail<IoError>(fmt::format("{}: none of its {} records can be used{}",
                                inputs_[i].path.string(), scan_.inputs[i].records,
                                first.empty() ? "" : "; the first: " + first));
    }
    if (splits_["train"]["records"] == 0)
      fail<IoError>("data pairs: no record is left for training");
  }

  json make_manifest() {
    json inputs = json::array(), notes = json::object();
    for (std::size_t i = 0; i < inputs_.size(); ++i)
      inputs.push_back({{"file", inputs_[i].path.string()},
                        {"split", inputs_[i].is_validation ? "validation"
                                  : wants_validation()     ? "both"
                                                           : "train"},
                        {"is", scan_.inputs[i].is},
                        {"forms", scan_.inputs[i].forms},
                        {"records", scan_.inputs[i].records},
                        {"kept", kept_[i]}});
    if (splits_["validation"]["records"] == 0) {
      splits_.erase("validation");
      fs::remove_all(folder_ / "validation");
    }
    for (const auto& [note, records] : scan_.notes) notes[note] = records;
    return {{"format", kPairsFormat},
            {"version", kPairsVersion},
            {"inputs_sha256", scan_.fingerprint},
            {"settings",
             {{"split", options_.train_share},
              {"seed", options_.seed},
              {"prompt", options_.prompt},
              {"dots_per_inch", options_.dots_per_inch},
              {"records_per_shard", options_.records_per_shard},
              {"shard_bytes", options_.shard_bytes},
              {"positions", options_.model ? json(options_.model->positions) : json()}}},
            {"tokenizer",
             {{"source", options_.tokenizer.string()},
              {"sha256", tokenizer_sha256_},
              {"tokens", tokenizer_.vocab_size()}}},
            {"inputs", std::move(inputs)},
            {"grouped_by", scan_.grouped_by},
            {"splits", splits_},
            {"dropped", drops_},
            {"notes", std::move(notes)}};
  }

  const PairBuildOptions& options_;
  const std::vector<detail::PairInput>& inputs_;
  const detail::PairScan& scan_;
  const Tokenizer& tokenizer_;
  const std::string& tokenizer_sha256_;
  fs::path partial_, folder_;  // the second is in the first, and becomes `out`
  std::optional<FolderLock> lock_;
  std::optional<detail::GrowingFile> dropped_file_, keys_file_;
  bool has_progress_ = false;
  std::int64_t went_on_after_ = 0;

  std::size_t split_ = 0;  // that is written
  std::int64_t next_ = 0;  // place of its first item that is not in a shard
  json splits_ = json::object(), drops_ = json::object();
  std::vector<std::int64_t> kept_;        // of each input
  std::vector<std::string> first_drops_;  // of each input, of this process
  detail::KeySet contents_[2], documents_[2], training_pictures_;
  std::int64_t done_ = 0, done_before_ = 0;
  Stopwatch watch_;
};

PairBuildSummary summary_of_pairs(const json& manifest) {
  PairBuildSummary out;
  for (const json& each : manifest.at("inputs"))
    out.inputs.push_back({each.at("file"), each.at("split"), each.at("is"),
                          each.at("forms").get<std::map<std::string, std::int64_t>>(),
                          each.at("records"), each.at("kept")});
  for (const auto& [name, split] : manifest.at("splits").items())
    out.splits.push_back({name, split.at("records"), split.at("pictures"), split.at("boxes"),
                          split.at("documents"), split.at("tokens"),
                          static_cast<std::int64_t>(split.at("shards").size()), split.at("bytes")});
  out.grouped_by = manifest.at("grouped_by");
  for (const auto& [reason, drops] : manifest.at("dropped").items())
    out.dropped[reason] = {drops.at("records"), drops.at("first")};
  out.notes = manifest.at("notes").get<std::map<std::string, std::int64_t>>();
  return out;
}

bool is_up_to_date(const fs::path& out, const json& manifest, const std::string& fingerprint) {
  try {
    return !manifest.is_null() && manifest.at("inputs_sha256") == fingerprint &&
           manifest.at("version") == kPairsVersion && has_its_shards(out, manifest) &&
           fs::exists(out / "tokenizer.json");
  } catch (const std::exception&) {
    return false;
  }
}

}  // namespace

std::int64_t PairBuildSummary::dropped_records() const {
  std::int64_t sum = 0;
  for (const auto& [reason, drops] : dropped) sum += drops.records;
  return sum;
}

PairBuildSummary build_pairs(const PairBuildOptions& options) {
  check_pair_options(options);
  const Stopwatch watch;
  const Tokenizer tokenizer = Tokenizer::load(options.tokenizer);
  const std::string tokenizer_sha256 = sha256_of(tokenizer.json());
  check_replaceable(options.out, published_manifest(options.out, kPairsFormat), "data pairs");
  PairBuildSummary summary;
  try {
    const std::vector<detail::PairInput> inputs = detail::inputs_of(options);
    const detail::PairScan scan =
        scan_inputs(options, inputs, tokenizer_sha256, [&](std::int64_t done) {
          if (options.progress) options.progress({true, done, 0, watch.seconds(), 0});
        });
    const json old = published_manifest(options.out, kPairsFormat);
    if (is_up_to_date(options.out, old, scan.fingerprint)) {
      summary = summary_of_pairs(old);
      summary.up_to_date = true;
      return summary;
    }
    PairBuilder builder(options, inputs, scan, tokenizer, tokenizer_sha256);
    // Another process may just have made it.
    check_replaceable(options.out, published_manifest(options.out, kPairsFormat), "data pairs");
    summary = summary_of_pairs(builder.build());
    summary.went_on_after = builder.went_on_after();
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
