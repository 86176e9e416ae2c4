// Which pieces of the pages pass a source's filters.
#pragma once

#include "data/samples/cut.h"

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

namespace lectern::detail {

/// Words, lines or whole pages in order of page. Twelve bytes each: a corpus has many.
struct Unit {
  std::uint32_t page = 0;
  std::uint32_t first = 0;   // word or line of the page; 0 for whole pages
  std::uint16_t count = 1;   // lines of a region or window, words of a run
  std::uint16_t tokens = 0;  // of the response, without the end token
};

struct UnitIndex {
  std::vector<Unit> units;
  LeftOut left_out;
};

/// What passes of the shards of a source that messages call `what`. The lines of a region are
/// joined by a newline. With source.cut_width lines become runs of words (`first` is a word) and
/// regions windows (`first` is the word at their left edge, in the first line). Throws ConfigError
/// on bad options, when the shards were made with another tokenizer and when nothing passes,
/// IoError on damaged shards. `text_only` takes whole records that have no picture, too.
UnitIndex index_units(const CutOptions& source, const Tokenizer& tokenizer, std::string_view what,
                      bool text_only = false);

/// Words of the lines `line` .. `line + count - 1` that lie inside a window of `width` pixels which
/// begins at word `start`; lines without any are left out. `first_word` is ShardPage::first_word.
std::vector<std::vector<std::int64_t>> words_in_window(const std::function<Box(std::int64_t)>& box,
                                                       std::span<const std::int64_t> first_word,
                                                       std::int64_t line, std::int64_t count,
                                                       std::int64_t start, double width);

}  // namespace lectern::detail
