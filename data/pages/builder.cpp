#include "data/pages/builder.h"

#include "core/error.h"
#include "core/io/files.h"
#include "core/io/folder_lock.h"
#include "core/stopwatch.h"
#include "core/threads.h"
#include "data/pages/batch.h"
#include "data/text/utf8.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <tuple>

namespace lectern {
namespace {

namespace fs = std::filesystem;

/// Part of every document's fingerprint: raise it when the same options give other pages.
constexpr int kRules = 2;
constexpr std::int64_t kPagesPerBatch = 8;

/// A folder for unpacked documents that goes away with the object.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = (fs::temp_directory_path() / "lectern-pages-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr)
      fail<WriteError>(
          fmt::format("{}: temporary folder cannot be made: {}", name, std::strerror(errno)));
    path_ = name;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// A document that must be made.
struct Build {
  PageSource source;
  DocumentEntry entry;
  fs::path pdf;  // unpacked
  std::vector<PageEntry> pages;
  std::int64_t failed = 0;
  std::string first_failure;
};

struct WorkItem {
  std::size_t build;
  detail::PageBatch batch;
  detail::PageBatchResult result;
};

bool is_plain_id(const std::string& id) {
  return !id.empty() && id.size() <= 120 && id[0] != '.' && id[0] != '-' &&
         std::all_of(id.begin(), id.end(), [](char c) {
           return (c & 0x80) != 0 || std::isalnum(static_cast<unsigned char>(c)) || c == '.' ||
                  c == '_' || c == '-';
         });
}

void check_options(const PageBuildOptions& options) {
  if (options.sources.empty()) fail<ConfigError>("data pages: at least one PDF must be given");
  if (options.out.empty()) fail<ConfigError>("data pages: the output folder must be given");
  if (!(options.dots_per_inch >= 10 && options.dots_per_inch <= 1200))
    fail<ConfigError>(
        fmt::format("data pages: dpi must be in 10..1200, got {:g}", options.dots_per_inch));
  if (options.jobs < 1 || options.jobs > 1024)
    fail<ConfigError>(fmt::format("data pages: jobs must be in 1..1024, got {}", options.jobs));
  for (const PageSource& source : options.sources) {
    if (source.first < 1 || source.last < 0 || (source.last > 0 && source.last < source.first))
      fail<ConfigError>(fmt::format("data pages: {}: pages must be 1 <= first <= last, got {}-{}",
                                    source.file.string(), source.first, source.last));
    if (!source.document_id.empty() && !is_plain_id(source.document_id))
      fail<ConfigError>(
          fmt::format("data pages: document id must be letters, digits, \".\", "
                      "\"_\" and \"-\", got \"{}\"",
                      source.document_id));
  }
}

std::string fingerprint(const PageSource& source, const PageBuildOptions& options) {
  return fmt::format(
      "rules {}, pages {}-{}, {:g} dpi, least {} characters, rotated {:g}, "
      "invisible {:g}, pixels {}, licence {}",
      kRules, source.first, source.last, options.dots_per_inch, options.quality.min_characters,
      options.quality.max_rotated_fraction, options.quality.max_invisible_fraction,
      options.limits.max_pixels, options.licence);
}

void remove_page(const fs::path& folder, const std::string& stem) {
  std::error_code ignored;
  for (const char* ending : {".json", ".txt", ".png"})
    fs::remove(folder / (stem + ending), ignored);
}

class Builder {
 public:
  explicit Builder(const PageBuildOptions& options) : options_(options) {}

  PageBuildSummary build() {
    std::error_code error;
    fs::create_directories(options_.out, error);
    if (error)
      fail<IoError>(
          fmt::format("{}: folder cannot be made: {}", options_.out.string(), error.message()));
    const FolderLock lock(options_.out, "lectern data pages");
    old_ = find_page_list(options_.out).value_or(PageList{});
    poppler_ = poppler_version();
    for (const PageSource& source : options_.sources) plan(source);
    for (Build& build : builds_) prepare(build);
    std::erase_if(builds_, [](const Build& build) { return build.pdf.empty(); });
    forget_replaced();
    run();
    collect();
    save();
    summary_.seconds = watch_.seconds();
    return std::move(summary_);
  }

 private:
  void skip(const fs::path& file, const std::string& reason) {
    summary_.skipped.push_back({file.filename().string(), absolute(file), reason});
  }

  static std::string absolute(const fs::path& file) {
    return fs::absolute(file).lexically_normal().string();
  }

  /// The recorded document that this source is: the same bytes, or the same place with new bytes.
  const DocumentEntry* recorded(const std::string& sha256, const std::string& path) const {
    const auto find = [&](auto&& matches) {
      const auto found = std::find_if(old_.documents.begin(), old_.documents.end(), matches);
      return found == old_.documents.end() ? nullptr : &*found;
    };
    const auto* same = find([&](const DocumentEntry& entry) { return entry.sha256 == sha256; });
    return same != nullptr ? same
                           : find([&](const DocumentEntry& entry) { return entry.path == path; });
  }

  bool is_complete(const DocumentEntry& entry) const {
    for (const PageEntry& page : old_.pages) {
      if (page.document != entry.id) continue;
      for (const char* ending : {".json", ".txt", ".png"})
        if (!fs::exists(options_.out / (page.stem + ending))) return false;
    }
    return true;
  }

  void plan(const PageSource& source) {
    DocumentEntry entry;
    try {
      entry.sha256 = sha256_of_file(source.file);
    } catch (const IoError& error) {
      return skip(source.file, detail::short_reason(error, source.file));
    }
    if (!given_.insert(entry.sha256).second)
      return skip(source.file, "the same bytes were given before");
    entry.source = source.file.filename().string();
    entry.path = absolute(source.file);
    entry.licence = options_.licence;
    entry.poppler = poppler_;
    entry.options = fingerprint(source, options_);
    entry.dots_per_inch = options_.dots_per_inch;
    const DocumentEntry* before = recorded(entry.sha256, entry.path);
    if (before != nullptr && handled_.contains(before->id)) before = nullptr;
    entry.id = choose_id(source, entry, before);
    handled_.insert(entry.id);
    if (before != nullptr) handled_.insert(before->id);
    if (before != nullptr && before->id == entry.id && before->sha256 == entry.sha256 &&
        before->options == entry.options && before->poppler == entry.poppler &&
        is_complete(*before)) {
      ++summary_.documents_up_to_date;
      summary_.documents.push_back(entry.id);
      return;
    }
    if (before != nullptr) replaces_[entry.id] = before->id;
    builds_.push_back({source, std::move(entry), {}, {}, 0, ""});
  }

  std::string choose_id(const PageSource& source, const DocumentEntry& entry,
                        const DocumentEntry* before) const {
    const auto taken = [&](const std::string& id) {
      return handled_.contains(id) ||
             (old_.find(id) != nullptr && (before == nullptr || before->id != id));
    };
    if (!source.document_id.empty()) {
      if (taken(source.document_id))
        fail<ConfigError>(fmt::format("data pages: document id {} is taken by another document",
                                      source.document_id));
      return source.document_id;
    }
    if (before != nullptr) return before->id;
    const std::string id = document_id_of(source.file);
    return taken(id) ? id + "-" + entry.sha256.substr(0, 8) : id;
  }

  /// Leaves build.pdf empty when the document cannot be read.
  void prepare(Build& build) {
    fs::path pdf = fs::absolute(build.source.file);
    try {
      if (pdf.extension() == ".gz") {
        if (scratch_ == nullptr) scratch_ = std::make_unique<ScratchFolder>();
        const fs::path unpacked = scratch_->path() / (build.entry.sha256 + ".pdf");
        gunzip_file(pdf, unpacked, std::uint64_t{1} << 31);
        pdf = unpacked;
      }
      build.entry.pdf_pages = read_pdf_info(pdf, options_.limits).pages;
      build.entry.first = build.source.first;
      build.entry.last = build.source.last == 0
                             ? build.entry.pdf_pages
                             : std::min(build.source.last, build.entry.pdf_pages);
      if (build.entry.first > build.entry.pdf_pages)
        fail<IoError>(fmt::format("{}: first page must be in 1..{}, got {}", pdf.string(),
                                  build.entry.pdf_pages, build.entry.first));
      build.pdf = pdf;
    } catch (const WriteError&) {
      throw;  // a full disk is no fault of the document, which would be left out
    } catch (const IoError& error) {
      skip(build.source.file, detail::short_reason(error, pdf));
    }
  }

  /// Takes the documents that are about to change off the recorded list, so that an interrupted
  /// run does not leave a list that speaks for pages it did not make.
  void forget_replaced() {
    std::set<std::string> gone;
    for (const Build& build : builds_)
      if (const auto found = replaces_.find(build.entry.id); found != replaces_.end())
        gone.insert(found->second);
    if (gone.empty()) return;
    for (const PageEntry& page : old_.pages)
      if (gone.contains(page.document)) stale_.insert(page.stem);
    std::erase_if(old_.documents,
                  [&](const DocumentEntry& entry) { return gone.contains(entry.id); });
    std::erase_if(old_.pages, [&](const PageEntry& page) { return gone.contains(page.document); });
    save_page_list(old_, options_.out);
  }

  void run() {
    std::int64_t total = 0;
    for (std::size_t i = 0; i < builds_.size(); ++i) {
      const Build& build = builds_[i];
      total += build.entry.last - build.entry.first + 1;
      for (std::int64_t first = build.entry.first; first <= build.entry.last;
           first += kPagesPerBatch)
        items_.push_back({i,
                          {build.pdf, build.entry.id, build.entry.source, first,
                           std::min(first + kPagesPerBatch - 1, build.entry.last)},
                          {}});
    }
    std::atomic<std::size_t> next{0};
    std::mutex mutex;
    std::exception_ptr failure;
    std::int64_t done = 0;
    // Plain threads, not the OpenMP pool: they wait for child processes, which do the work.
    const auto work = [&] {
      for (;;) {
        const std::size_t i = next.fetch_add(1);
        if (i >= items_.size()) return;
        try {
          items_[i].result = detail::build_batch(items_[i].batch, options_);
          const std::lock_guard lock(mutex);
          done += items_[i].batch.last - items_[i].batch.first + 1;
          if (options_.progress) options_.progress({done, total, watch_.seconds()});
        } catch (...) {
          const std::lock_guard lock(mutex);
          if (failure == nullptr) failure = std::current_exception();
          next = items_.size();
        }
      }
    };
    const std::size_t count = std::min<std::size_t>(options_.jobs, items_.size());
    std::vector<std::thread> threads = start_threads(static_cast<std::int64_t>(count) - 1, work);
    work();
    for (std::thread& thread : threads) thread.join();
    if (failure != nullptr) std::rethrow_exception(failure);
  }

  void collect() {
    for (WorkItem& item : items_) {
      Build& build = builds_[item.build];
      if (item.result.failed > 0 && build.first_failure.empty())
        build.first_failure = item.result.dropped.front().reason;
      build.failed += item.result.failed;
      std::move(item.result.pages.begin(), item.result.pages.end(),
                std::back_inserter(build.pages));
      std::move(item.result.dropped.begin(), item.result.dropped.end(),
                std::back_inserter(build.entry.dropped));
      std::move(item.result.notes.begin(), item.result.notes.end(),
                std::back_inserter(build.entry.notes));
    }
    PageList& list = summary_.list;
    list.documents = old_.documents;
    list.pages = old_.pages;
    for (Build& build : builds_) {
      if (build.failed == build.entry.last - build.entry.first + 1) {
        skip(build.source.file, "no page could be read: " + build.first_failure);
        continue;
      }
      ++summary_.documents_built;
      summary_.documents.push_back(build.entry.id);
      summary_.pages_written += static_cast<std::int64_t>(build.pages.size());
      summary_.pages_dropped += static_cast<std::int64_t>(build.entry.dropped.size());
      std::move(build.pages.begin(), build.pages.end(), std::back_inserter(list.pages));
      list.documents.push_back(std::move(build.entry));
    }
    std::sort(list.documents.begin(), list.documents.end(),
              [](const DocumentEntry& a, const DocumentEntry& b) { return a.id < b.id; });
    std::sort(list.pages.begin(), list.pages.end(), [](const PageEntry& a, const PageEntry& b) {
      return std::tie(a.document, a.number) < std::tie(b.document, b.number);
    });
    list.skipped = summary_.skipped;
  }

  /// Nothing is written when nothing changed.
  void save() {
    if (summary_.up_to_date() && to_json_text(old_) == to_json_text(summary_.list)) return;
    for (const PageEntry& page : summary_.list.pages) stale_.erase(page.stem);
    for (const std::string& stem : stale_) remove_page(options_.out, stem);
    save_page_list(summary_.list, options_.out);
  }

  const PageBuildOptions& options_;
  Stopwatch watch_;
  PageBuildSummary summary_;
  PageList old_;
  std::string poppler_;
  std::unique_ptr<ScratchFolder> scratch_;
  std::vector<Build> builds_;
  std::vector<WorkItem> items_;
  std::set<std::string> given_;    // hashes of this call
  std::set<std::string> handled_;  // ids of this call, and ids that it replaces
  std::map<std::string, std::string> replaces_;
  std::set<std::string> stale_;  // stems of replaced documents
};

}  // namespace

std::string document_id_of(const fs::path& file) {
  fs::path name = file.filename();
  if (name.extension() == ".gz") name = name.stem();
  if (name.extension() == ".pdf" || name.extension() == ".PDF") name = name.stem();
  const std::string text = name.string();
  const bool unicode = is_utf8(text);
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool kept = (byte & 0x80) != 0 ? unicode : std::isalnum(byte) || c == '.' || c == '_';
    if (kept)
      out += (byte & 0x80) != 0 ? c : static_cast<char>(std::tolower(byte));
    else if (!out.empty() && out.back() != '-')
      out += '-';
  }
  while (!out.empty() && (out.back() == '-' || out.back() == '.')) out.pop_back();
  out.erase(0, out.find_first_not_of(".-"));
  // Room in the file name for number, ending and a hash; never half a character.
  constexpr std::size_t kMaxId = 120;
  out.resize(utf8_prefix(out, kMaxId).size());
  return out.empty() ? "document" : out;
}

PageBuildSummary build_pages(const PageBuildOptions& options) {
  check_options(options);
  return Builder(options).build();
}

}  // namespace lectern
