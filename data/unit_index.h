// Which pieces of the pages pass a source's filters; private to data/.
#pragma once

#include "data/sample.h"

#include <cstdint>
#include <string_view>
#include <vector>

namespace lectern::detail {

/// Words, lines or whole pages in order of page. Twelve bytes each: a corpus has many.
struct Unit {
  std::uint32_t page = 0;
  std::uint32_t first = 0;   // word or line of the page; 0 for whole pages
  std::uint16_t count = 1;   // lines of a region
  std::uint16_t tokens = 0;  // of the response, without the end token
};

struct UnitIndex {
  std::vector<Unit> units;
  std::int64_t dropped = 0;
};

/// `newline_tokens` join the lines of a region. Throws IoError on damaged shards.
UnitIndex index_units(const SampleSource& source, std::int64_t newline_tokens);

/// Characters of UTF-8.
std::int64_t count_characters(std::string_view text);

}  // namespace lectern::detail
