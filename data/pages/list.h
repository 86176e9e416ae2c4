// pages.json: what a folder of pages holds and where it came from. It is written last and at once,
// so a folder without it is not finished.
//
// {"format": "lectern-pages", "version": 1,
//  "documents": [{"id", "source", "path", "sha256", "licence", "poppler", "options", "pdf_pages",
//                 "first", "last", "dots_per_inch", "dropped": [{"number", "reason"}],
//                 "notes": [{"number", "note"}]}],
//  "pages": [{"stem", "document", "number", "width", "height", "characters"}],
//  "skipped": [{"source", "path", "reason"}]}
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace lectern {

struct DroppedPage {
  std::int64_t number = 0;
  std::string reason;
};

/// What is to be known of a page that is used all the same: hidden words that were left out, what
/// poppler complained of when it drew it.
struct PageNote {
  std::int64_t number = 0;
  std::string note;
};

struct PageEntry {
  std::string stem;  // <stem>.json, .png, .txt
  std::string document;
  std::int64_t number = 0;
  std::int64_t width = 0, height = 0;
  std::int64_t characters = 0;  // of the page's text
};

struct DocumentEntry {
  std::string id;
  std::string source;   // file name
  std::string path;     // where it was read from
  std::string sha256;   // of the file as it was given
  std::string licence;  // as the caller said, may be empty
  std::string poppler;  // version of the tools that read it
  std::string options;  // fingerprint of everything that decides what its pages look like
  std::int64_t pdf_pages = 0, first = 0, last = 0;
  double dots_per_inch = 0;
  std::vector<DroppedPage> dropped;
  std::vector<PageNote> notes;
};

struct SkippedDocument {
  std::string source, path, reason;
};

struct PageList {
  std::vector<DocumentEntry> documents;  // by id
  std::vector<PageEntry> pages;          // by document, then number
  std::vector<SkippedDocument> skipped;

  const DocumentEntry* find(const std::string& id) const;
};

/// The JSON text of a list.
std::string to_json_text(const PageList& list);
/// Reads <folder>/pages.json. Throws IoError naming file and field.
PageList load_page_list(const std::filesystem::path& folder);
/// The same, or nothing when there is no such file.
std::optional<PageList> find_page_list(const std::filesystem::path& folder);
/// Writes <folder>/pages.json. Throws IoError.
void save_page_list(const PageList& list, const std::filesystem::path& folder);

}  // namespace lectern
