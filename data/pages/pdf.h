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
  std::int64_t max_pixels = std::int64_t{1} << 26;  // of one page
};

/// Version of the tools, such as "22.12.0".
std::string poppler_version();

/// Number of pages. Throws IoError on what is no PDF, is encrypted, or has no page.
std::int64_t pdf_page_count(const std::filesystem::path& path, const PdfLimits& limits = {});

/// Pages first..last (from 1) as RGB pictures of their crop boxes, in order.
std::vector<Image> render_pdf_pages(const std::filesystem::path& path, std::int64_t first,
                                    std::int64_t last, double dots_per_inch,
                                    const PdfLimits& limits = {});

/// Text of pages first..last as parse_bbox_layout gives it, with numbers; boxes fit the pictures
/// that render_pdf_pages makes at the same resolution.
std::vector<Page> read_pdf_text(const std::filesystem::path& path, std::int64_t first,
                                std::int64_t last, double dots_per_inch,
                                const PdfLimits& limits = {});

}  // namespace lectern
