#include "data/pairs/scan.h"

#include "core/io/files.h"
#include "core/random.h"
#include "data/pairs/key_set.h"
#include "data/pairs/reader.h"
#include "data/text/utf8.h"
#include "data/tokenizer/prompt.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <numeric>
#include <regex>
#include <set>
#include <utility>

namespace lectern::detail {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostNotes = 50;
constexpr std::size_t kMostDocumentBytes = 1024;

/// A hash of many facts, of which only some are held.
class Facts {
 public:
  void add(std::string_view fact) {
    constexpr std::size_t kHeld = std::size_t{1} << 20;
    text_ += fact;
    text_ += '\n';
    if (text_.size() > kHeld) text_ = sha256_of(text_) + "\n";
  }
  std::string hash() const { return sha256_of(text_); }

 private:
  std::string text_;
};

std::string stamp_of(const fs::path& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) return fmt::format("{} missing", path.string());
  const auto time = fs::last_write_time(path, error).time_since_epoch().count();
  return fmt::format("{} {} {}", path.string(), size, static_cast<std::int64_t>(time));
}

std::uint64_t hash_of(std::string_view text) { return key_of_text(text).high; }

/// The name of a picture without its suffix and without a page number that says to be one:
/// "book-p12", "book_page_012", "book.pg3".
std::string picture_document(const std::string& name) {
  static const std::regex page(R"(^(.+)[-_. ](page|pg|p)[-_. ]?[0-9]{1,6}$)", std::regex::icase);
  fs::path path = name;
  path.replace_extension();
  const std::string stem = path.filename().string();
  std::smatch parts;
  constexpr std::size_t kLongest = 255;  // of a file's name; the expression is recursive
  if (stem.size() <= kLongest && std::regex_match(stem, parts, page))
    path.replace_filename(parts[1].str());
  return path.lexically_normal().generic_string();
}

std::string folder_document(const std::string& name) {
  const fs::path folder = fs::path(name).lexically_normal().parent_path();
  return folder.empty() ? "." : folder.generic_string();
}

/// A document by the hash of its name, and how many records it has.
using Counts = std::vector<std::pair<std::uint64_t, std::int64_t>>;

Counts counts_of(std::vector<std::uint64_t> hashes) {
  std::sort(hashes.begin(), hashes.end());
  Counts out;
  for (const std::uint64_t hash : hashes) {
    if (out.empty() || out.back().first != hash) out.emplace_back(hash, 0);
    ++out.back().second;
  }
  return out;
}

/// Folders stand for documents where there are many and none has most of the records.
bool are_documents(const Counts& folders, std::int64_t records) {
  constexpr std::size_t kFewest = 10;
  constexpr std::int64_t kLargestPart = 5;
  return folders.size() >= kFewest &&
         std::all_of(folders.begin(), folders.end(),
                     [&](const auto& folder) { return folder.second * kLargestPart <= records; });
}

std::vector<std::uint64_t> choose_held_out(Counts documents, const PairBuildOptions& options) {
  if (options.train_share >= 1 || documents.empty()) return {};
  if (documents.size() == 1)
    fail<ConfigError>(
        "data pairs: --split needs two documents, got one: give --group-by KEY, --documents or a "
        "--validation file");
  const std::uint64_t mix = hash_of(fmt::format("pairs/{}", options.seed));
  const auto order_of = [&](std::uint64_t hash) {
    Random random(hash ^ mix, "pairs/order");
    const std::uint64_t high = random.next();
    return high << 32 | random.next();
  };
  std::vector<std::pair<std::uint64_t, std::size_t>> order;
  std::int64_t records = 0;
  for (std::size_t i = 0; i < documents.size(); ++i) {
    order.emplace_back(order_of(documents[i].first), i);
    records += documents[i].second;
  }
  std::sort(order.begin(), order.end());
  const double wanted = (1 - options.train_share) * static_cast<double>(records);
  double taken = 0;
  std::vector<std::uint64_t> out;
  // A document is put aside when that brings the share nearer to what was asked for.
  for (const auto& [key, i] : order) {
    const auto more = static_cast<double>(documents[i].second);
    if (out.size() + 1 == documents.size() ||
        std::abs(taken + more - wanted) >= std::abs(taken - wanted))
      continue;
    out.push_back(documents[i].first);
    taken += more;
  }
  if (out.empty())
    out.push_back(std::min_element(documents.begin(), documents.end(), [](auto& a, auto& b) {
                    return a.second < b.second;
                  })->first);
  std::sort(out.begin(), out.end());
  return out;
}

std::string settings_of(const PairBuildOptions& o, const std::string& tokenizer_sha256) {
  std::string out = fmt::format(
      "pairs {} tokenizer {} prompt {}:{} own {}:{} group {}:{} documents {} split {} seed {} dpi "
      "{} size {} {}",
      kShardVersion, tokenizer_sha256, o.prompt.size(), o.prompt, o.own_prompt.size(), o.own_prompt,
      o.group_by.size(), o.group_by, o.documents, o.train_share, o.seed, o.dots_per_inch,
      o.records_per_shard, o.shard_bytes);
  if (o.model)
    out += fmt::format(" model {} {} {} {} {} {}", o.model->positions, o.model->vocabulary,
                       o.model->has_begin, o.model->view.global_size, o.model->view.tile_size,
                       o.model->view.crop);
  return out;
}

/// Counts notes of records, no more kinds of them than somebody reads.
void add_notes(const std::vector<std::string>& notes, std::map<std::string, std::int64_t>& to) {
  for (const std::string& note : notes) {
    const auto found = to.find(note);
    if (found != to.end())
      ++found->second;
    else if (to.size() < kMostNotes)
      to.emplace(note, 1);
    else
      ++to["other notes"];
  }
}

class Scan {
 public:
  Scan(const PairBuildOptions& options, const std::vector<PairInput>& inputs)
      : options_(options), inputs_(inputs) {}

  PairScan run(const std::string& tokenizer_sha256,
               const std::function<void(std::int64_t)>& progress) {
    facts_.add(settings_of(options_, tokenizer_sha256));
    for (const PairInput& input : inputs_) read(input, progress);
    choose_documents();
    out_.fingerprint = facts_.hash();
    return std::move(out_);
  }

 private:
  void read(const PairInput& input, const std::function<void(std::int64_t)>& progress) {
    constexpr std::int64_t kBetweenReports = 4096;
    facts_.add(stamp_of(input.path) + (input.is_validation ? " validation" : ""));
    const auto reader = open_input(input.path, form_options(options_));
    PairScan::Input& counts = out_.inputs.emplace_back();
    counts.is = reader->describe();
    PairItem item;
    while (reader->next(item)) {
      ++counts.forms[item.form.empty() ? "unreadable" : item.form];
      add_notes(item.notes, out_.notes);
      facts_.add(item.picture.empty() ? item.name : stamp_of(item.picture));
      if (!item.text_file.empty()) facts_.add(stamp_of(item.text_file));
      if (!input.is_validation) add_document(item, id_of(input, item, counts.records));
      ++counts.records;
      if (++out_.records % kBetweenReports == 0) progress(out_.records);
    }
  }

  void add_document(const PairItem& item, const std::string& id) {
    if (item.unusable) return;
    if (!item.group.empty()) {
      first_.push_back(hash_of(document_of(item, id, DocumentRule::key)));
    } else {
      if (item.name.empty()) ++texts_;
      first_.push_back(hash_of(document_of(item, id, DocumentRule::picture)));
      if (options_.documents != "picture")
        folders_.push_back(hash_of(document_of(item, id, DocumentRule::folder)));
    }
  }

  void choose_documents() {
    const auto records = static_cast<std::int64_t>(first_.size());
    Counts documents = counts_of(std::move(first_));
    Counts folders = counts_of(std::move(folders_));
    const bool has_key = !options_.group_by.empty();
    // Texts alone are documents of their own, and say nothing of folders.
    const bool by_folder =
        !has_key && (options_.documents == "folder" ||
                     (options_.documents == "auto" && folders.size() < documents.size() &&
                      texts_ == 0 && are_documents(folders, records)));
    if (by_folder) documents = std::move(folders);
    out_.rule = has_key     ? DocumentRule::key
                : by_folder ? DocumentRule::folder
                            : DocumentRule::picture;
    const auto count = static_cast<std::int64_t>(documents.size()) - texts_;
    out_.grouped_by = has_key     ? fmt::format("{} values of \"{}\"", count, options_.group_by)
                      : by_folder ? fmt::format("{} folders of pictures", count)
                                  : fmt::format(
                                        "{} documents: a PDF, or a picture with all that are pages "
                                        "of it by name",
                                        count);
    if (count == 0) out_.grouped_by = "no document";
    if (texts_ > 0 && options_.train_share < 1)
      out_.grouped_by += fmt::format(
          "; {} texts without a picture have none and are split at random, record by record "
          "(--group-by KEY keeps them together)",
          texts_);
    out_.held_out = choose_held_out(std::move(documents), options_);
  }

  const PairBuildOptions& options_;
  const std::vector<PairInput>& inputs_;
  PairScan out_;
  Facts facts_;
  std::vector<std::uint64_t> first_, folders_;  // a record's document, by either rule
  std::int64_t texts_ = 0;
};

}  // namespace

std::vector<PairInput> inputs_of(const PairBuildOptions& options) {
  std::vector<PairInput> out;
  std::set<std::string> names;
  for (const bool is_validation : {false, true})
    for (const fs::path& path : is_validation ? options.validation : options.inputs) {
      const fs::path plain = fs::absolute(path).lexically_normal();
      std::string name = (plain.has_filename() ? plain : plain.parent_path()).filename().string();
      name = std::string(utf8_prefix(name, kMostDocumentBytes));
      if (!names.insert(name).second) {
        name = fmt::format("{}.{}", out.size() + 1, name);
        names.insert(name);
      }
      out.push_back({path, name, is_validation});
    }
  return out;
}

std::string id_of(const PairInput& input, const PairItem& item, std::int64_t number) {
  return fmt::format("{}:{}", input.name, item.line > 0 ? item.line : number + 1);
}

std::string document_of(const PairItem& item, const std::string& id, DocumentRule rule) {
  std::string out = !item.group.empty()            ? item.group
                    : item.name.empty()            ? id
                    : rule == DocumentRule::folder ? folder_document(item.name)
                                                   : picture_document(item.name);
  if (out.size() > kMostDocumentBytes)
    out = fmt::format("{}... {}", utf8_prefix(out, kMostDocumentBytes / 2), sha256_of(out));
  return out;
}

bool PairScan::holds_out(const std::string& document) const {
  return std::binary_search(held_out.begin(), held_out.end(), hash_of(document));
}

FormOptions form_options(const PairBuildOptions& options) {
  const std::string_view own = options.own_prompt;
  const bool has_break =
      own.starts_with(kImageTag) && own.substr(kImageTag.size()).starts_with('\n');
  return {options.group_by, has_break ? "\n" : ""};
}

PairScan scan_inputs(const PairBuildOptions& options, const std::vector<PairInput>& inputs,
                     const std::string& tokenizer_sha256,
                     const std::function<void(std::int64_t)>& progress) {
  return Scan(options, inputs).run(tokenizer_sha256, progress);
}

}  // namespace lectern::detail
