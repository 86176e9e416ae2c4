// One piece of work of the page builder: a range of pages of one PDF.
#pragma once

#include "core/error.h"
#include "data/pages/builder.h"

namespace lectern::detail {

struct PageBatch {
  std::filesystem::path pdf;     // unpacked
  std::string document, source;  // go into the pages
  std::int64_t first = 1, last = 1;
};

struct PageBatchResult {
  std::vector<PageEntry> pages;
  std::vector<DroppedPage> dropped;
  std::vector<PageNote> notes;
  std::int64_t failed = 0;  // of the dropped: poppler gave an error
};

/// Writes the batch's pages into options.out. What poppler cannot do is recorded, page by page;
/// throws IoError when a file cannot be written.
PageBatchResult build_batch(const PageBatch& batch, const PageBuildOptions& options);

/// What an error says happened, without the file, which lists name, and the place in our source.
std::string short_reason(const Error& error, const std::filesystem::path& file);

/// "<document>-0007"
std::string page_stem(const std::string& document, std::int64_t number);

}  // namespace lectern::detail
