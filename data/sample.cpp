#include "data/sample.h"

#include "core/error.h"
#include "core/random.h"
#include "data/files.h"
#include "data/unit_index.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace lectern {
namespace {

using detail::Unit;
using detail::UnitIndex;

/// Samples of a drawn source: more than any run takes, and the sampler permutes them for nothing.
constexpr std::int64_t kDrawnUnits = std::int64_t{1} << 32;
/// Texts that are tried for one sample until one is short enough.
constexpr int kAttempts = 16;

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

/// Lays `piece` on `canvas`; what leaves the canvas is cut off.
void paste(Image& canvas, const Image& piece, std::int64_t left, std::int64_t top) {
  const std::int64_t begin = std::max<std::int64_t>(left, 0);
  const std::int64_t end = std::min(left + piece.width, canvas.width);
  if (begin >= end) return;
  for (std::int64_t y = std::max<std::int64_t>(top, 0);
       y < std::min(top + piece.height, canvas.height); ++y)
    std::memcpy(canvas.row(y) + 3 * begin, piece.row(y - top) + 3 * (begin - left),
                static_cast<std::size_t>(end - begin) * 3);
}

std::string_view strip_image_tag(std::string_view prompt) {
  constexpr std::string_view kTag = "<image>";
  if (prompt.starts_with(kTag)) prompt.remove_prefix(kTag.size());
  if (prompt.find(kTag) != std::string_view::npos)
    fail<ConfigError>(
        fmt::format("samples: <image> must come first in the prompt, got \"{}\"", prompt));
  return prompt;
}

void check_options(const SampleOptions& options) {
  if (options.views.empty()) fail<ConfigError>("samples: views must not be empty");
  for (const ViewOptions& view : options.views) {
    const auto smallest = std::min(view.global_size, view.crop ? view.tile_size : view.global_size);
    if (view.patch_size < 1 || smallest < view.patch_size)
      fail<ConfigError>(fmt::format("samples: views must be at least a patch of {} pixels, got {}",
                                    view.patch_size, smallest));
    const auto most = std::max(view.global_size, view.tile_size);
    if (most > 16384)
      fail<ConfigError>(fmt::format("samples: views must be at most 16384 pixels, got {}", most));
    if (options.margin < 0 || 2 * options.margin >= view.global_size)
      fail<ConfigError>(fmt::format("samples: margin must be in 0 .. {}, got {}",
                                    (view.global_size - 1) / 2, options.margin));
  }
  for (const auto& [name, value] :
       {std::pair{"padding", options.padding}, std::pair{"text_height", options.text_height},
        std::pair{"jitter_pixels", options.jitter_pixels}})
    if (value < 0 || value > 1024)
      fail<ConfigError>(fmt::format("samples: {} must be in 0 .. 1024, got {}", name, value));
}

void check_source(const SampleSource& source) {
  if (source.shards == nullptr && source.synthetic == nullptr)
    fail<ConfigError>("samples: a source has no shards and draws nothing");
  if (source.shards != nullptr && source.synthetic != nullptr)
    fail<ConfigError>("samples: a source must have shards or be drawn, got both");
  const std::string where =
      fmt::format("samples: {} of {}", name_of(source.level),
                  source.shards ? source.shards->folder().string() : "drawn text");
  if (source.shards && source.level == Level::character)
    fail<ConfigError>(fmt::format("{}: shards have no level character", where));
  if (source.max_response_tokens < 1)
    fail<ConfigError>(fmt::format("{}: max_response_tokens must be >= 1, got {}", where,
                                  source.max_response_tokens));
  if (source.max_characters < 0)
    fail<ConfigError>(
        fmt::format("{}: max_characters must be >= 0, got {}", where, source.max_characters));
  if (source.cut_width < 0)
    fail<ConfigError>(fmt::format("{}: cut_width must be >= 0, got {}", where, source.cut_width));
  if (source.region_lines < 1)
    fail<ConfigError>(
        fmt::format("{}: region_lines must be >= 1, got {}", where, source.region_lines));
  if (source.window_pages < 0)
    fail<ConfigError>(
        fmt::format("{}: window_pages must be >= 0, got {}", where, source.window_pages));
}

struct Source {
  SampleSource options;
  std::vector<std::int32_t> prompt_ids;
  UnitIndex index;  // of shards

  bool is_drawn() const { return options.synthetic != nullptr; }
  /// Units are runs or windows, made of words.
  bool is_cut() const {
    return options.cut_width > 0 &&
           (options.level == Level::line || options.level == Level::region);
  }
};

/// What a drawn sample says.
struct DrawnText {
  std::string text;
  std::vector<std::int32_t> ids;
  int attempt = 0;
};

}  // namespace

struct SampleSet::State {
  State(SampleOptions given, const Tokenizer& with)
      : options(std::move(given)), tokenizer(with), newline_ids(with.encode("\n")) {}

  SampleOptions options;
  Tokenizer tokenizer;
  std::vector<std::int32_t> newline_ids;
  std::vector<Source> sources;

  const Source& source(const Draw& draw) const {
    return sources[static_cast<std::size_t>(draw.source)];
  }
  const Unit& unit(const Draw& draw) const {
    return source(draw).index.units[static_cast<std::size_t>(draw.unit)];
  }
  const ViewOptions& view(int index) const {
    return options.views[static_cast<std::size_t>(index)];
  }

  ViewGrid grid(const Draw& draw, int view_index) const {
    const Source& from = source(draw);
    if (from.options.level != Level::page) return {};
    const auto [width, height] =
        from.is_drawn() ? from.options.synthetic->page_size(static_cast<std::uint64_t>(draw.unit))
                        : from.options.shards->size(static_cast<std::int64_t>(unit(draw).page));
    return choose_grid(width, height, view(view_index));
  }
  std::int64_t image_tokens(const Draw& draw, int view_index) const {
    if (source(draw).options.level == Level::text) return 0;
    return image_token_count(view(view_index), grid(draw, view_index));
  }

  /// Where a pasted text moves this time.
  std::array<std::int64_t, 2> jitter(const Draw& draw) const {
    if (options.jitter_pixels == 0) return {0, 0};
    Random random(options.seed, "sample/jitter");
    random.seek(4 * draw.position);
    const auto choices = static_cast<std::uint64_t>(2 * options.jitter_pixels + 1);
    const auto x = static_cast<std::int64_t>(random.below(choices)) - options.jitter_pixels;
    return {x, static_cast<std::int64_t>(random.below(choices)) - options.jitter_pixels};
  }

  /// Everything that the pixels depend on, but for the page image itself.
  std::string key(const Draw& draw, int view_index, const ShardPage& page) const {
    const Unit& piece = unit(draw);
    const ViewOptions& views = view(view_index);
    const Level level = source(draw).options.level;
    const ViewGrid tiles = grid(draw, view_index);
    std::string out = fmt::format("{}|{}x{}|{}|{}+{}|{}:{}x{}:{}", page.id, page.width, page.height,
                                  name_of(level), piece.first, piece.count, views.global_size,
                                  tiles.columns, tiles.rows, views.tile_size);
    if (level == Level::page || level == Level::text) return out;
    const auto [x, y] = jitter(draw);
    return out + fmt::format("|{},{},{},{},{},{}", options.margin, options.padding,
                             options.text_height, source(draw).options.cut_width, x, y);
  }

  std::string drawn_key(const Draw& draw, int view_index) const;
  DrawnText drawn_text(const Draw& draw) const;
  Sample make_drawn(const Draw& draw, int view_index, bool pixels) const;
  Sample make_cut(const Draw& draw, int view_index, bool pixels) const;
  std::int64_t longest_drawn(const Source& from, int view_index) const;

  std::vector<std::vector<std::int64_t>> cut_words(const Draw& draw, const ShardPage& page) const;
  void fill_text(const Draw& draw, const ShardPage& page, Sample& out) const;
  void fill_pixels(const Draw& draw, int view_index, const DecodedPage& page, Sample& out) const;
  void check_units(const Draw& draw, const ShardPage& page) const;
};

std::string SampleSet::State::drawn_key(const Draw& draw, int view_index) const {
  const ViewOptions& views = view(view_index);
  const ViewGrid tiles = grid(draw, view_index);
  return fmt::format("drawn|{}|{}|{}:{}x{}:{}|{},{}", source(draw).options.synthetic->fingerprint(),
                     draw.unit, views.global_size, tiles.columns, tiles.rows, views.tile_size,
                     options.margin, options.jitter_pixels);
}

/// The first text that is short enough and has no special token in it.
DrawnText SampleSet::State::drawn_text(const Draw& draw) const {
  const SampleSource& from = source(draw).options;
  for (DrawnText out; out.attempt < kAttempts; ++out.attempt) {
    out.text = from.synthetic->text(static_cast<std::uint64_t>(draw.unit), out.attempt);
    out.ids = tokenizer.encode(out.text);
    if (!out.ids.empty() && static_cast<std::int64_t>(out.ids.size()) <= from.max_response_tokens &&
        std::none_of(out.ids.begin(), out.ids.end(),
                     [&](std::int32_t id) { return tokenizer.is_special(id); }))
      return out;
  }
  fail<ConfigError>(fmt::format(
      "samples: drawn {} {}: no text of at most max_response_tokens = {} tokens in {} tries",
      name_of(from.level), draw.unit, from.max_response_tokens, kAttempts));
}

Sample SampleSet::State::make_drawn(const Draw& draw, int view_index, bool pixels) const {
  const Source& from = source(draw);
  const auto index = static_cast<std::uint64_t>(draw.unit);
  DrawnText text = drawn_text(draw);
  Sample out;
  out.level = from.options.level;
  out.page_id = fmt::format("drawn/{}", draw.unit);
  out.prompt_ids = from.prompt_ids;
  out.text = std::move(text.text);
  out.response_ids = std::move(text.ids);
  const ViewGrid tiles = grid(draw, view_index);
  out.columns = tiles.columns;
  out.rows = tiles.rows;
  out.image_tokens = image_tokens(draw, view_index);
  out.key = drawn_key(draw, view_index);
  if (!pixels) return out;
  if (out.level == Level::page) {
    ImageViews made =
        make_views(from.options.synthetic->draw_page(index, text.attempt), view(view_index));
    out.global = std::move(made.global);
    out.local = std::move(made.local);
    return out;
  }
  const Placement place{view(view_index).global_size, options.margin, options.jitter_pixels};
  out.global = from.options.synthetic->draw(index, place, text.attempt);
  return out;
}

/// No text is longer than max_response_tokens, no page has more tiles than max_tiles.
std::int64_t SampleSet::State::longest_drawn(const Source& from, int view_index) const {
  const ViewOptions& views = view(view_index);
  ViewGrid most;
  if (from.options.level == Level::page && views.crop) most = {views.max_tiles, 1};
  return (options.begin_token >= 0 ? 1 : 0) + image_token_count(views, most) +
         static_cast<std::int64_t>(from.prompt_ids.size()) + from.options.max_response_tokens + 1;
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
  const std::int64_t size = views.global_size, room = size - 2 * options.margin;
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
  double scale = 1;
  if (options.text_height > 0 && level != Level::region)
    scale = static_cast<double>(options.text_height) / std::max(out.box.bottom - out.box.top, 1.0);
  const auto width = static_cast<double>(cut.width), height = static_cast<double>(cut.height);
  scale = std::min({scale, static_cast<double>(room) / width, static_cast<double>(room) / height});
  if (scale != 1)
    piece = resize_bicubic(piece, std::max<std::int64_t>(std::lround(width * scale), 1),
                           std::max<std::int64_t>(std::lround(height * scale), 1));
  out.global = make_image(size, size);
  const auto [x, y] = jitter(draw);
  const std::int64_t top = level == Level::region ? options.margin : (size - piece.height) / 2;
  const auto inside = [&](std::int64_t at, std::int64_t length) {
    return std::clamp<std::int64_t>(at, 0, std::max<std::int64_t>(size - length, 0));
  };
  paste(out.global, piece, inside(options.margin + x, piece.width), inside(top + y, piece.height));
}

SampleSet::SampleSet(std::vector<SampleSource> sources, SampleOptions options,
                     const Tokenizer& tokenizer)
    : state_(std::make_unique<State>(std::move(options), tokenizer)) {
  check_options(state_->options);
  if (sources.empty()) fail<ConfigError>("samples: sources must not be empty");
  const std::string sha256 = sha256_of(tokenizer.json());
  for (SampleSource& source : sources) {
    check_source(source);
    if (source.synthetic) {
      source.level = source.synthetic->options().level;
      std::vector<std::int32_t> prompt = tokenizer.encode(strip_image_tag(source.prompt));
      state_->sources.push_back({std::move(source), std::move(prompt), {}});
      state_->drawn_text({0, static_cast<int>(state_->sources.size()) - 1, 0, 0});
      continue;
    }
    const std::string folder = source.shards->folder().string();
    if (source.shards->tokenizer_sha256() != sha256)
      fail<ConfigError>(
          fmt::format("samples: {} was made with another tokenizer (sha256 {}), got one with {}",
                      folder, source.shards->tokenizer_sha256(), sha256));
    UnitIndex index = detail::index_units(source, tokenizer);
    if (index.units.empty())
      fail<ConfigError>(fmt::format("samples: no {} of {} passes the filters ({} did not)",
                                    name_of(source.level), folder, index.dropped));
    index.units.shrink_to_fit();
    std::vector<std::int32_t> prompt;
    if (source.level != Level::text) prompt = tokenizer.encode(strip_image_tag(source.prompt));
    state_->sources.push_back({std::move(source), std::move(prompt), std::move(index)});
  }
}

SampleSet::~SampleSet() = default;
SampleSet::SampleSet(SampleSet&&) noexcept = default;
const SampleOptions& SampleSet::options() const { return state_->options; }

std::vector<SamplerSource> SampleSet::sampler_sources() const {
  std::vector<SamplerSource> out;
  for (const Source& source : state_->sources) {
    if (source.is_drawn()) {
      out.push_back({kDrawnUnits, source.options.weight, 0});
      continue;
    }
    const auto units = static_cast<std::int64_t>(source.index.units.size());
    const Level level = source.options.level;
    const bool windowed = level != Level::page && level != Level::text;
    const std::int64_t pages = std::max<std::int64_t>(source.options.shards->pages(), 1);
    const std::int64_t window =
        windowed && source.options.window_pages > 0
            ? std::max<std::int64_t>(units * source.options.window_pages / pages, 1)
            : 0;
    out.push_back({units, source.options.weight, std::min(window, units)});
  }
  return out;
}

std::int64_t SampleSet::units(int source) const {
  const Source& from = state_->sources.at(static_cast<std::size_t>(source));
  return from.is_drawn() ? kDrawnUnits : static_cast<std::int64_t>(from.index.units.size());
}

std::int64_t SampleSet::dropped(int source) const {
  return state_->sources.at(static_cast<std::size_t>(source)).index.dropped;
}

std::int64_t SampleSet::trained_count(const Draw& draw) const {
  if (state_->source(draw).is_drawn())
    return static_cast<std::int64_t>(state_->drawn_text(draw).ids.size()) + 1;
  return state_->unit(draw).tokens + 1;
}

std::int64_t SampleSet::token_count(const Draw& draw, int view) const {
  return (state_->options.begin_token >= 0 ? 1 : 0) + state_->image_tokens(draw, view) +
         static_cast<std::int64_t>(state_->source(draw).prompt_ids.size()) + trained_count(draw);
}

std::int64_t SampleSet::longest(int view) const {
  std::int64_t most = 0;
  for (std::size_t s = 0; s < state_->sources.size(); ++s) {
    if (state_->sources[s].is_drawn()) {
      most = std::max(most, state_->longest_drawn(state_->sources[s], view));
      continue;
    }
    for (std::int64_t unit = 0; unit < units(static_cast<int>(s)); ++unit)
      most = std::max(most, token_count({0, static_cast<int>(s), unit, 0}, view));
  }
  return most;
}

ViewGrid SampleSet::grid(const Draw& draw, int view) const { return state_->grid(draw, view); }

std::string SampleSet::key(const Draw& draw, int view) const {
  if (state_->source(draw).is_drawn()) return state_->drawn_key(draw, view);
  const auto page =
      state_->source(draw).options.shards->read(static_cast<std::int64_t>(state_->unit(draw).page));
  return state_->key(draw, view, page->page);
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

Sample SampleSet::make(const Draw& draw, int view, bool pixels) const {
  return state_->source(draw).is_drawn() ? state_->make_drawn(draw, view, pixels)
                                         : state_->make_cut(draw, view, pixels);
}

}  // namespace lectern
