#include "data/samples/unit_cut.h"

#include "data/text/utf8.h"

#include <algorithm>
#include <array>
#include <string>

namespace lectern::detail {
namespace {

/// One page of a shard's tables.
class PageCutter {
 public:
  PageCutter(const CutOptions& source, const Tokenizer& tokenizer, const UnitTable& lines,
             const UnitTable& words, std::array<std::int64_t, 2> size, std::int64_t shard_page,
             std::int64_t set_page, UnitIndex& out)
      : source_(source),
        tokenizer_(tokenizer),
        lines_(lines),
        words_(words),
        size_(size),
        page_(static_cast<std::uint32_t>(set_page)),
        first_line_(lines.first_unit[static_cast<std::size_t>(shard_page)]),
        end_line_(lines.first_unit[static_cast<std::size_t>(shard_page) + 1]),
        offset_(words.first_unit[static_cast<std::size_t>(shard_page)]),
        out_(out) {
    // A line's text is its words, joined by single spaces.
    const std::int64_t end = words.first_unit[static_cast<std::size_t>(shard_page) + 1] - offset_;
    for (std::int64_t line = first_line_; line < end_line_; ++line) {
      const std::string_view text = lines.units.text(line);
      const std::int64_t count = 1 + std::count(text.begin(), text.end(), ' ');
      first_word_.push_back(std::min(end, first_word_.back() + count));
    }
  }

  void cut_runs() {
    for (std::int64_t line = 0; line < end_line_ - first_line_; ++line) {
      const auto at = static_cast<std::size_t>(line);
      for (std::int64_t word = first_word_[at]; word < first_word_[at + 1];) {
        std::int64_t next = word + 1;
        while (next < first_word_[at + 1] && box(next).right - box(word).left <= width()) ++next;
        std::vector<std::int64_t> run;
        for (std::int64_t i = word; i < next; ++i) run.push_back(i);
        add(word, next - word, {run});
        word = next;
      }
    }
  }

  void cut_windows() {
    const std::int64_t lines = end_line_ - first_line_;
    for (std::int64_t line = 0; line < lines;) {
      std::int64_t end = line + 1;
      while (end < lines && end - line < source_.region_lines && joined(end)) ++end;
      const auto at = static_cast<std::size_t>(line);
      for (std::int64_t word = first_word_[at]; word < first_word_[at + 1];) {
        const auto inside = words_in_window([&](std::int64_t i) { return box(i); }, first_word_,
                                            line, end - line, word, width());
        add(word, end - line, inside);
        word = inside[0].back() + 1;
      }
      line = end;
    }
  }

 private:
  double width() const { return static_cast<double>(source_.cut_width); }
  Box box(std::int64_t word) const { return words_.units.box(offset_ + word); }
  bool joined(std::int64_t line) const {
    const auto at = static_cast<std::size_t>(first_line_ + line);
    return lines_.blocks[at - 1] == lines_.blocks[at] &&
           continues(lines_.units.box(first_line_ + line - 1),
                     lines_.units.box(first_line_ + line));
  }

  void add(std::int64_t first, std::int64_t count,
           const std::vector<std::vector<std::int64_t>>& lines) {
    std::string text;
    Reason reason = count <= 65535 ? nullptr : &LeftOut::characters;
    std::int64_t characters = 0;
    for (const auto& line : lines) {
      std::string joined;
      for (const std::int64_t word : line) {
        const std::string_view one = words_.units.text(offset_ + word);
        joined.append(joined.empty() ? "" : " ").append(one);
        reason = first_of(reason, first_of(reason_in_box(box(word), one, size_),
                                           reason_in_text(one, 1, source_)));
      }
      characters += count_characters(joined) + (text.empty() ? 0 : 1);
      text.append(text.empty() ? "" : "\n").append(joined);
    }
    const auto tokens = static_cast<std::int64_t>(tokenizer_.encode(text).size());
    if (tokens > std::min<std::int64_t>(source_.max_response_tokens, 65535))
      reason = first_of(reason, &LeftOut::tokens);
    if (source_.max_characters > 0 && characters > source_.max_characters)
      reason = first_of(reason, &LeftOut::characters);
    if (reason != nullptr)
      ++(out_.left_out.*reason);
    else
      out_.units.push_back({page_, static_cast<std::uint32_t>(first),
                            static_cast<std::uint16_t>(count), static_cast<std::uint16_t>(tokens)});
  }

  const CutOptions& source_;
  const Tokenizer& tokenizer_;
  const UnitTable &lines_, &words_;
  std::array<std::int64_t, 2> size_;
  std::uint32_t page_;
  std::int64_t first_line_, end_line_, offset_;
  std::vector<std::int64_t> first_word_{0};
  UnitIndex& out_;
};

}  // namespace

UnitIndex index_cut(const CutOptions& source, const Tokenizer& tokenizer) {
  UnitIndex index;
  const ShardSet& shards = *source.shards;
  for (std::int64_t s = 0; s < shards.shards(); ++s) {
    const auto shard = shards.shard(s);
    const UnitTable words = shard->word_table(), lines = shard->line_table();
    for (std::int64_t page = 0; page < shard->pages(); ++page) {
      PageCutter cutter(source, tokenizer, lines, words, shard->size(page), page,
                        shards.first_page()[static_cast<std::size_t>(s)] + page, index);
      if (source.level == Level::line)
        cutter.cut_runs();
      else
        cutter.cut_windows();
    }
  }
  return index;
}

}  // namespace lectern::detail
