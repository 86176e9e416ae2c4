// Samples that are cut from the pages of shards.
#include "core/error.h"
#include "core/random.h"
#include "data/images/piece_view.h"
#include "data/samples/state.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace lectern {
namespace {

using detail::Source;
using detail::Unit;

/// Whole pixels of the page around a box.
struct Rectangle {
  std::int64_t left, top, width, height;
};

Rectangle around(const Box& box, std::int64_t padding) {
  const auto left = static_cast<std::int64_t>(std::floor(box.left)) - padding;
  const auto top = static_cast<std::int64_t>(std::floor(box.top)) - padding;
  return {left, top, static_cast<std::int64_t>(std::ceil(box.right)) + padding - left,
          static_cast<std::int64_t>(std::ceil(box.bottom)) + padding - top};
}

Box join(const Box& a, const Box& b) {
  return {std::min(a.left, b.left), std::min(a.top, b.top), std::max(a.right, b.right),
          std::max(a.bottom, b.bottom)};
}

}  // namespace

std::array<std::int64_t, 2> SampleSet::State::jitter(const Draw& draw) const {
  if (options.jitter_pixels == 0) return {0, 0};
  Random random(options.seed, "sample/jitter");
  random.seek(4 * draw.position);
  const auto choices = static_cast<std::uint64_t>(2 * options.jitter_pixels + 1);
  const auto x = static_cast<std::int64_t>(random.below(choices)) - options.jitter_pixels;
  return {x, static_cast<std::int64_t>(random.below(choices)) - options.jitter_pixels};
}

std::string SampleSet::State::key(const Draw& draw, int view_index, const ShardPage& page) const {
  const Unit& piece = unit(draw);
  const ViewOptions& views = view(view_index);
  const Level level = source(draw).options.level;
  const ViewGrid tiles = grid(draw, view_index);
  std::string out = fmt::format("{}|{}x{}|{}|{}+{}|{}:{}x{}:{}", page.id, page.width, page.height,
                                name_of(level), piece.first, piece.count, views.global_size,
                                tiles.columns, tiles.rows, views.tile_size);
  if (level == Level::page || level == Level::text) return out;
  const auto [x, y] = jitter(draw);
  return out + fmt::format("|{},{},{},{},{},{}{}", options.margin, options.padding,
                           options.text_height, source(draw).options.cut_width, x, y,
                           options.at_top ? "|top" : "");
}

/// The tables were read when the set was made; the file may have changed since.
void SampleSet::State::check_units(const Draw& draw, const ShardPage& page) const {
  const Unit& piece = unit(draw);
  const Level level = source(draw).options.level;
  std::int64_t limit = 1;
  if (source(draw).is_cut()) {
    if (piece.first >= page.words.size())
      fail<IoError>(fmt::format("{}: page {} must have {} words, got {}",
                                source(draw).options.shards->folder().string(), page.id,
                                piece.first + 1, page.words.size()));
    return;
  }
  if (level == Level::word) limit = page.words.size();
  if (level == Level::line || level == Level::region) limit = page.lines.size();
  if (static_cast<std::int64_t>(piece.first) + piece.count > limit)
    fail<IoError>(fmt::format("{}: page {} must have {} {}s, got {}",
                              source(draw).options.shards->folder().string(), page.id,
                              piece.first + piece.count, name_of(level), limit));
}

/// Words of a run, or of each line of a window.
std::vector<std::vector<std::int64_t>> SampleSet::State::cut_words(const Draw& draw,
                                                                   const ShardPage& page) const {
  const Unit& piece = unit(draw);
  const SampleSource& from = source(draw).options;
  if (from.level == Level::line) {
    std::vector<std::int64_t> run;
    const std::int64_t end = std::min<std::int64_t>(piece.first + piece.count, page.words.size());
    for (std::int64_t i = piece.first; i < end; ++i) run.push_back(i);
    return {run};
  }
  const auto above = std::upper_bound(page.first_word.begin(), page.first_word.end(),
                                      static_cast<std::int64_t>(piece.first));
  const std::int64_t line = above - page.first_word.begin() - 1;
  const std::int64_t count = std::min<std::int64_t>(piece.count, page.lines.size() - line);
  return detail::words_in_window([&](std::int64_t i) { return page.words.box(i); }, page.first_word,
                                 line, count, piece.first, static_cast<double>(from.cut_width));
}

void SampleSet::State::fill_text(const Draw& draw, const ShardPage& page, Sample& out) const {
  const Unit& piece = unit(draw);
  const Level level = source(draw).options.level;
  if (level == Level::page || level == Level::text) {
    out.text = page.text;
    out.response_ids = page.ids;
    out.box = {0, 0, static_cast<double>(page.width), static_cast<double>(page.height)};
    return;
  }
  if (source(draw).is_cut()) {
    for (const auto& line : cut_words(draw, page)) {
      if (!out.text.empty()) out.text += '\n';
      for (const std::int64_t word : line) {
        out.box = out.text.empty() ? page.words.box(word) : join(out.box, page.words.box(word));
        if (word != line.front()) out.text += ' ';
        out.text += page.words.text(word);
      }
    }
    out.response_ids = tokenizer.encode(out.text);  // words side by side have other tokens
    return;
  }
  const TextUnits& units = level == Level::word ? page.words : page.lines;
  for (std::int64_t i = piece.first; i < piece.first + piece.count; ++i) {
    const bool begins = i == piece.first;
    if (!begins) {
      out.text += '\n';
      out.response_ids.insert(out.response_ids.end(), newline_ids.begin(), newline_ids.end());
    }
    const auto ids = units.ids[i];
    out.text += units.text(i);
    out.response_ids.insert(out.response_ids.end(), ids.begin(), ids.end());
    out.box = begins ? units.box(i) : join(out.box, units.box(i));
  }
}

void SampleSet::State::fill_pixels(const Draw& draw, int view_index, const DecodedPage& page,
                                   Sample& out) const {
  const ViewOptions& views = view(view_index);
  const Level level = source(draw).options.level;
  if (level == Level::page) {
    ImageViews made = make_views(page.crop(0, 0, page.page.width, page.page.height), views);
    out.global = std::move(made.global);
    out.local = std::move(made.local);
    return;
  }
  const std::int64_t size = views.global_size;
  const Rectangle cut = around(out.box, options.padding);
  Image piece;
  if (level == Level::region && source(draw).is_cut()) {
    // Only the words that the text has: others would be cut off at the window's edge.
    piece = make_image(cut.width, cut.height);
    for (const auto& line : cut_words(draw, page.page))
      for (const std::int64_t word : line) {
        const Rectangle at = around(page.page.words.box(word), options.padding);
        paste(piece, page.crop(at.left, at.top, at.width, at.height), at.left - cut.left,
              at.top - cut.top);
      }
  } else {
    piece = page.crop(cut.left, cut.top, cut.width, cut.height);
  }
  const auto [x, y] = jitter(draw);
  const PieceView place{.size = size,
                        .margin = options.margin,
                        .text_height = level == Level::region ? 0 : options.text_height,
                        .at_top = options.at_top || level == Level::region,
                        .shift_x = x,
                        .shift_y = y};
  out.global = lay_piece(std::move(piece), out.box.bottom - out.box.top, place);
}

Sample SampleSet::State::make_cut(const Draw& draw, int view_index, bool pixels) const {
  const Source& from = source(draw);
  const ShardSet& shards = *from.options.shards;
  const auto at = static_cast<std::int64_t>(unit(draw).page);
  pixels = pixels && from.options.level != Level::text;
  const auto page = pixels ? shards.decoded(at) : shards.read(at);
  check_units(draw, page->page);
  Sample out;
  out.level = from.options.level;
  out.page_id = page->page.id;
  out.prompt_ids = from.prompt_ids;
  const ViewGrid tiles = grid(draw, view_index);
  out.columns = tiles.columns;
  out.rows = tiles.rows;
  out.image_tokens = image_tokens(draw, view_index);
  out.key = key(draw, view_index, page->page);
  fill_text(draw, page->page, out);
  if (static_cast<std::int64_t>(out.response_ids.size()) != unit(draw).tokens)
    fail<IoError>(fmt::format("{}: page {} changed while it was in use", shards.folder().string(),
                              out.page_id));
  if (pixels) fill_pixels(draw, view_index, *page, out);
  return out;
}

}  // namespace lectern
