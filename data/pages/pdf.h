// PDF documents through poppler's command-line tools, as child processes bounded in time and
// memory; poppler is never linked (its licence is the GPL). Every function throws IoError naming
// the file, the program and what it said.
#pragma once

#include "data/images/image.h"
#include "data/pages/page.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace lectern {

struct PdfLimits {
  double seconds = 60;           // for each child process
  double seconds_per_page = 30;  // added for each page it handles
  std::uint64_t memory_bytes = std::uint64_t{2} << 30;
  std::int64_t max_pixels = std::int64_t{1} << 26;          // of one page
  std::int64_t max_pixels_at_once = std::int64_t{1} << 27;  // of the pages of one call
};

/// Version of the tools, such as "22.12.0".
std::string poppler_version();

struct PdfInfo {
  std::int64_t pages = 0;
  std::string note;  // what poppler complained of while opening the file, one line, may be empty
};

/// Throws IoError on what is no PDF, needs a password, or has no page. Nothing that the document
/// says of itself (title, author, ...) can change the answer.
PdfInfo read_pdf_info(const std::filesystem::path& path, const PdfLimits& limits = {});

struct PdfPicture {
  std::int64_t number = 0;  // of the page, from 1
  Image image;              // RGB picture of its crop box; width 0 when there is an error
  std::string error;        // why there is no picture, without the file's name; or ""
  std::string note;         // what poppler complained of while drawing: parts may be missing; or ""
};

/// Pages first, first + 1, ... in order, one entry for each; each page's fault is its own entry's
/// `error`: a page larger than limits.max_pixels, which is never drawn; one that the file counts
/// but does not have; one on which poppler fails. At least one entry, and all up to `last` unless
/// the pictures would have more than limits.max_pixels_at_once: ask again from the page after
/// back().number. `note` is one line such as "Syntax Error (721): ..." with the number of further
/// ones; what read_pdf_info() notes of the whole file is left out. Throws IoError when the file
/// cannot be opened, or first is beyond its last page.
std::vector<PdfPicture> render_pdf_pages(const std::filesystem::path& path, std::int64_t first,
                                         std::int64_t last, double dots_per_inch,
                                         const PdfLimits& limits = {});

/// Text of pages first..last as parse_bbox_layout gives it, with numbers; boxes fit the pictures
/// that render_pdf_pages makes at the same resolution. A page that the file counts but does not
/// have is 0 x 0 pixels. `note`, where given, becomes what poppler complained of, in one line.
std::vector<Page> read_pdf_text(const std::filesystem::path& path, std::int64_t first,
                                std::int64_t last, double dots_per_inch,
                                const PdfLimits& limits = {}, std::string* note = nullptr);

}  // namespace lectern
