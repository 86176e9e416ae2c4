#include "data/samples/records.h"

#include "core/io/file.h"
#include "core/io/files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <iterator>
#include <set>
#include <unordered_set>

namespace lectern {
namespace {

/// White space depends on how a text was stored: words one after the other do not.
std::string text_hash(const std::string& text, std::size_t& letters) {
  std::string kept;
  std::copy_if(text.begin(), text.end(), std::back_inserter(kept),
               [](unsigned char c) { return std::isspace(c) == 0; });
  letters = kept.size();
  return sha256_of(kept);
}

/// Shorter texts, such as a page's "Appendix", may be alike by chance. Bytes.
constexpr std::size_t kShortestText = 24;

std::string list_of(const std::vector<std::string>& names) {
  constexpr std::size_t kListed = 5;
  std::string out;
  for (std::size_t i = 0; i < std::min(names.size(), kListed); ++i)
    out += (i > 0 ? ", " : "") + names[i];
  if (names.size() > kListed) out += fmt::format(" and {} more", names.size() - kListed);
  return out;
}

}  // namespace

void visit_records(const ShardSet& shards, const std::function<void(const SourceRecord&)>& visit) {
  for (std::int64_t s = 0; s < shards.shards(); ++s) {
    const auto shard = shards.shard(s);
    const std::int64_t first = shards.first_page()[static_cast<std::size_t>(s)];
    for (std::int64_t page = 0; page < shard->pages(); ++page)
      visit({shard->describe(page).document, shard->token_count(page),
             [&shards, at = first + page] { return shards.read(at)->page.text; }});
  }
}

void visit_files(const std::vector<std::filesystem::path>& files,
                 const std::function<void(const SourceRecord&)>& visit) {
  for (const std::filesystem::path& file : files)
    visit({file.filename().string(), -1, [&file] { return read_file(file); }});
}

SharedRecords shared_records(const std::vector<std::shared_ptr<const SampleSource>>& training,
                             const std::vector<std::shared_ptr<const SampleSource>>& held_out) {
  SharedRecords out;
  struct HeldOut {
    std::string document, hash;
  };
  std::vector<HeldOut> records;
  std::set<std::string> documents, shared_documents, shared_texts;
  std::unordered_set<std::string> hashes;
  std::unordered_set<std::int64_t> lengths;  // in tokens; -1: of a file
  for (const auto& source : held_out)
    source->each_record([&](const SourceRecord& record) {
      std::size_t letters = 0;
      std::string hash = text_hash(record.text(), letters);
      if (letters < kShortestText) hash.clear();
      documents.insert(record.document);
      if (!hash.empty()) hashes.insert(hash);
      lengths.insert(record.tokens);
      records.push_back({record.document, std::move(hash)});
    });
  std::unordered_set<std::string> seen;
  for (const auto& source : training)
    source->each_record([&](const SourceRecord& record) {
      if (documents.contains(record.document)) shared_documents.insert(record.document);
      // Tokens count only between records: the texts of files are read all.
      const bool may_be_same =
          record.tokens < 0 || lengths.contains(-1) || lengths.contains(record.tokens);
      std::size_t letters = 0;
      if (may_be_same && !hashes.empty()) {
        const std::string hash = text_hash(record.text(), letters);
        if (hashes.contains(hash)) seen.insert(hash);
      }
    });
  out.records = static_cast<std::int64_t>(records.size());
  for (const HeldOut& record : records)
    if (!record.hash.empty() && seen.contains(record.hash)) {
      ++out.same_text;
      shared_texts.insert(record.document);
    }
  out.documents.assign(shared_documents.begin(), shared_documents.end());
  out.texts_documents.assign(shared_texts.begin(), shared_texts.end());
  return out;
}

std::string wording(const SharedRecords& shared) {
  if (shared.same_text > 0)
    return fmt::format(
        "validation overlaps with training: {} of {} held-out records have a text that is trained "
        "on, too (documents: {}); scores will be of what training saw",
        shared.same_text, shared.records, list_of(shared.texts_documents));
  if (!shared.documents.empty())
    return fmt::format(
        "validation and training both have documents of these names, with other texts: {}",
        list_of(shared.documents));
  return "";
}

}  // namespace lectern
