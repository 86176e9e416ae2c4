// PDF documents -> a folder of pages: <document>-NNNN.{png,txt,json} and pages.json.
#pragma once

#include "data/pages/list.h"
#include "data/pages/pdf.h"
#include "data/pages/quality.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace lectern {

struct PageSource {
  std::filesystem::path file;  // .pdf or .pdf.gz
  std::int64_t first = 1;
  std::int64_t last = 0;    // 0: the document's last page
  std::string document_id;  // "": from the file name
};

struct PageProgress {
  std::int64_t done = 0, total = 0;  // pages, dropped ones included
  double seconds = 0;
};

struct PageBuildOptions {
  std::vector<PageSource> sources;
  std::filesystem::path out;
  double dots_per_inch = 100;
  int jobs = 2;  // child processes at a time
  std::string licence;
  PageQuality quality;
  PdfLimits limits;
  std::function<void(const PageProgress&)> progress;  // called from one thread at a time
};

struct PageBuildSummary {
  std::int64_t documents_built = 0, documents_up_to_date = 0;
  std::int64_t pages_written = 0, pages_dropped = 0;  // of the documents built in this call
  std::vector<std::string> documents;                 // ids of those built or up to date
  std::vector<SkippedDocument> skipped;               // could not be read, or given twice
  double seconds = 0;
  PageList list;  // what the folder now holds

  /// True when nothing had to be made.
  bool up_to_date() const { return documents_built == 0 && documents_up_to_date > 0; }
};

/// Adds the sources to the folder `out` (made when missing). A document whose bytes, page range,
/// resolution, rules and poppler version are those recorded in pages.json, and whose files are all
/// there, is left alone; one that changed is made again and its old pages are deleted; documents of
/// earlier calls stay. A document that cannot be read is skipped and listed, and so is one whose
/// bytes were already given under another name. A page whose text cannot be believed
/// (reason_to_drop) or that poppler fails on is dropped and listed.
/// Ids come from file names, with eight digits of the hash where two documents would share one.
/// Words that the picture does not show are left out, and noted. One call at a time works in a
/// folder (FolderLock).
/// Throws ConfigError on unusable options, IoError when the folder cannot be written or another
/// process works in it.
PageBuildSummary build_pages(const PageBuildOptions& options);

/// "Report v2.pdf.gz" -> "report-v2": lower case, runs of other characters than a-z 0-9 . _ become
/// "-"; letters beyond ASCII are kept.
std::string document_id_of(const std::filesystem::path& file);

}  // namespace lectern
