#include "data/samples/unit_index.h"

#include "core/error.h"
#include "data/samples/unit_cut.h"
#include "data/text/utf8.h"

#include <algorithm>
#include <string>

namespace lectern::detail {
namespace {

constexpr double kSmallestSide = 3;          // pixels: less cannot be read
constexpr double kNarrowestLetter = 0.15;    // width over height: less is text that runs upwards
constexpr std::int64_t kMostTokens = 65535;  // what Unit::tokens holds
constexpr std::size_t kMostLines = 65535;

/// Visits each shard's table: f(page of the set, its size, table, first unit, end).
template <typename F>
void for_each_page(const ShardSet& shards, Level level, F&& f) {
  for (std::int64_t s = 0; s < shards.shards(); ++s) {
    const auto shard = shards.shard(s);
    const UnitTable table = level == Level::word ? shard->word_table() : shard->line_table();
    const std::int64_t first = shards.first_page()[static_cast<std::size_t>(s)];
    for (std::int64_t page = 0; page < shard->pages(); ++page) {
      const auto at = static_cast<std::size_t>(page);
      f(first + page, shard->size(page), table, table.first_unit[at], table.first_unit[at + 1]);
    }
  }
}

UnitIndex index_pieces(const CutOptions& source) {
  UnitIndex index;
  for_each_page(*source.shards, source.level,
                [&](std::int64_t page, std::array<std::int64_t, 2> size, const UnitTable& table,
                    std::int64_t begin, std::int64_t end) {
                  const TextUnits& units = table.units;
                  for (std::int64_t i = begin; i < end; ++i) {
                    const auto tokens = static_cast<std::int64_t>(units.ids.length(i));
                    const std::string_view text = units.text(i);
                    if (const Reason reason = first_of(reason_in_text(text, tokens, source),
                                                       reason_in_box(units.box(i), text, size))) {
                      ++(index.left_out.*reason);
                      continue;
                    }
                    index.units.push_back({static_cast<std::uint32_t>(page),
                                           static_cast<std::uint32_t>(i - begin), 1,
                                           static_cast<std::uint16_t>(tokens)});
                  }
                });
  return index;
}

/// Cuts a page's lines greedily into regions of at most region_lines.
UnitIndex index_regions(const CutOptions& source, std::int64_t newline_tokens) {
  UnitIndex index;
  const std::int64_t most_tokens = std::min(source.max_response_tokens, kMostTokens);
  for_each_page(*source.shards, Level::region,
                [&](std::int64_t page, std::array<std::int64_t, 2> size, const UnitTable& table,
                    std::int64_t begin, std::int64_t end) {
                  const TextUnits& lines = table.units;
                  const auto joined = [&](std::int64_t i) {
                    const auto at = static_cast<std::size_t>(i);
                    return table.blocks[at - 1] == table.blocks[at] &&
                           continues(lines.box(i - 1), lines.box(i));
                  };
                  Unit open{static_cast<std::uint32_t>(page), 0, 0, 0};
                  std::int64_t characters = 0;
                  const auto close = [&] {
                    if (open.count > 0) index.units.push_back(open);
                    open.count = open.tokens = 0;
                    characters = 0;
                  };
                  for (std::int64_t i = begin; i < end; ++i) {
                    const auto tokens = static_cast<std::int64_t>(lines.ids.length(i));
                    const std::string_view text = lines.text(i);
                    if (const Reason reason = first_of(reason_in_text(text, tokens, source),
                                                       reason_in_box(lines.box(i), text, size))) {
                      close();
                      ++(index.left_out.*reason);
                      continue;
                    }
                    const std::int64_t longer = open.tokens + newline_tokens + tokens;
                    const std::int64_t wider = characters + 1 + count_characters(text);
                    const bool fits =
                        open.count < std::min<std::int64_t>(source.region_lines, kMostLines) &&
                        longer <= most_tokens &&
                        (source.max_characters == 0 || wider <= source.max_characters);
                    if (open.count > 0 && !(fits && joined(i))) close();
                    if (open.count == 0) {
                      open.first = static_cast<std::uint32_t>(i - begin);
                      open.tokens = static_cast<std::uint16_t>(tokens);
                      characters = count_characters(text);
                    } else {
                      open.tokens = static_cast<std::uint16_t>(longer);
                      characters = wider;
                    }
                    ++open.count;
                  }
                  close();
                });
  return index;
}

/// Whole pages; the text itself is read only when a filter asks for it.
UnitIndex index_pages(const CutOptions& source, bool text_only) {
  UnitIndex index;
  const ShardSet& shards = *source.shards;
  const bool reads = source.ascii_only || source.max_characters > 0;
  for (std::int64_t page = 0; page < shards.pages(); ++page) {
    const std::int64_t tokens = shards.token_count(page);
    Reason reason = nullptr;
    if (tokens < 1 || (!text_only && shards.size(page)[0] == 0))
      reason = &LeftOut::empty;
    else if (tokens > std::min(source.max_response_tokens, kMostTokens))
      reason = &LeftOut::tokens;
    if (reason == nullptr && reads) {
      std::string text = shards.read(page)->page.text;
      std::replace(text.begin(), text.end(), '\n', ' ');
      reason = reason_in_text(text, tokens, source);
    }
    if (reason == nullptr)
      index.units.push_back(
          {static_cast<std::uint32_t>(page), 0, 1, static_cast<std::uint16_t>(tokens)});
    else
      ++(index.left_out.*reason);
  }
  return index;
}

UnitIndex index_level(const CutOptions& source, const Tokenizer& tokenizer, bool text_only) {
  if (source.has_cuts()) return index_cut(source, tokenizer);
  if (source.level == Level::page) return index_pages(source, text_only);
  if (source.level == Level::region)
    return index_regions(source, static_cast<std::int64_t>(tokenizer.encode("\n").size()));
  return index_pieces(source);
}

void check_options(const CutOptions& source, std::string_view what) {
  if (source.shards == nullptr) fail<ConfigError>("samples: a source has no shards");
  if (source.level == Level::character)
    fail<ConfigError>(fmt::format("samples: {}: shards have no level character", what));
  const auto at_least = [&](const char* name, std::int64_t value, std::int64_t least) {
    if (value < least)
      fail<ConfigError>(
          fmt::format("samples: {}: {} must be >= {}, got {}", what, name, least, value));
  };
  at_least("max_response_tokens", source.max_response_tokens, 1);
  at_least("max_characters", source.max_characters, 0);
  at_least("cut_width", source.cut_width, 0);
  at_least("region_lines", source.region_lines, 1);
  at_least("window_pages", source.window_pages, 0);
}

}  // namespace

Reason reason_in_text(std::string_view text, std::int64_t tokens, const CutOptions& source) {
  if (text.empty() || tokens < 1) return &LeftOut::empty;
  if (tokens > std::min(source.max_response_tokens, kMostTokens)) return &LeftOut::tokens;
  if (source.ascii_only &&
      !std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; }))
    return &LeftOut::letters;
  if (source.max_characters > 0 && count_characters(text) > source.max_characters)
    return &LeftOut::characters;
  return nullptr;
}

Reason reason_in_box(const Box& box, std::string_view text, std::array<std::int64_t, 2> page) {
  const double width = box.right - box.left, height = box.bottom - box.top;
  if (width < kSmallestSide || height < kSmallestSide) return &LeftOut::box;
  if (box.left < 0 || box.top < 0 || box.right > static_cast<double>(page[0]) ||
      box.bottom > static_cast<double>(page[1]))
    return &LeftOut::box;
  const auto characters = static_cast<double>(count_characters(text));
  const bool is_level = characters < 2 || width >= kNarrowestLetter * characters * height;
  return is_level ? nullptr : &LeftOut::box;
}

bool continues(const Box& last, const Box& next) {
  const double height = std::max(last.bottom - last.top, next.bottom - next.top);
  const double overlap = std::min(last.right, next.right) - std::max(last.left, next.left);
  const double narrower = std::min(last.right - last.left, next.right - next.left);
  const double gap = next.top - last.bottom;
  return overlap > 0.5 * narrower && gap > -0.5 * height && gap < height;
}

std::vector<std::vector<std::int64_t>> words_in_window(const std::function<Box(std::int64_t)>& box,
                                                       std::span<const std::int64_t> first_word,
                                                       std::int64_t line, std::int64_t count,
                                                       std::int64_t start, double width) {
  const double left = box(start).left, right = left + width;
  std::vector<std::vector<std::int64_t>> out;
  for (std::int64_t i = line; i < line + count; ++i) {
    std::vector<std::int64_t> words;
    const auto at = static_cast<std::size_t>(i);
    for (std::int64_t word = first_word[at]; word < first_word[at + 1]; ++word)
      if (word == start || (box(word).left >= left - 1 && box(word).right <= right))
        words.push_back(word);
    if (!words.empty()) out.push_back(std::move(words));
  }
  return out;
}

UnitIndex index_units(const CutOptions& source, const Tokenizer& tokenizer, std::string_view what,
                      bool text_only) {
  check_options(source, what);
  check_tokenizer(tokenizer, source.shards->tokenizer_sha256(), source.shards->folder().string());
  UnitIndex index = index_level(source, tokenizer, text_only);
  if (index.units.empty())
    fail<ConfigError>(
        fmt::format("samples: no {} passes the filters ({} did not)", what, index.left_out.sum()));
  index.units.shrink_to_fit();
  return index;
}

}  // namespace lectern::detail
